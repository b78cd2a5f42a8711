"""What is shown of a model in pictures."""

from pydantic import Field

from mlim_ray.config.base import Section


class PicturesConfig(Section):
    """A seeded sample of held-out records, the same for every model."""

    num_records: int = Field(8, ge=1, le=64)
    """records shown"""
    seed: int = Field(0, ge=0, lt=2**63)
    """seed of the choice of records and of what is hidden in them"""
