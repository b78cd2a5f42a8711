"""How records become embeddings."""

from typing import Literal

from pydantic import Field

from mlim_ray.config.base import Section


class EmbedConfig(Section):
    """Form of the embeddings, and how they are computed."""

    dtype: Literal["float32", "float16"] = "float32"
    """type of the stored numbers; float16 takes half of the room"""
    normalise: bool = False
    """whether each embedding is brought to length 1, so that a dot product is the cosine"""
    batch_size: int = Field(256, ge=1)
    """records of a forward pass"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """what is computed in; bfloat16 is for GPUs"""
