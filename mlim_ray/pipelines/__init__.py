"""Ray Data, Ray Train and Ray Tune around the core: the only package that imports ray."""
