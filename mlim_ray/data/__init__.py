"""Records in, model-ready examples out: sources, cleaning, images, text, prepared sets."""
