"""The whole config of a comparison of fine-tunings on pairs."""

from pydantic import Field

from mlim_ray.config.pairs import PairsConfig
from mlim_ray.config.run import PretrainConfig


class PairsRunConfig(PretrainConfig):
    """Pre-training runs, and the fine-tunings on pairs that start from them."""

    pairs: PairsConfig = Field(default_factory=PairsConfig)
