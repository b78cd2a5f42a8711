"""The whole config of an experiment that asks whether settings rank alike in two sizes of the model."""

from typing import Self

from pydantic import Field, model_validator

from mlim_ray.config.base import Section
from mlim_ray.config.compare import CompareRunConfig
from mlim_ray.config.model import ModelSize

_FEWEST_ARMS = 8


class TransferConfig(Section):
    """What the model of --model.size is compared with."""

    larger: ModelSize = "small"
    """size of the larger model"""


class TransferRunConfig(CompareRunConfig):
    """Masking settings, each in two sizes."""

    transfer: TransferConfig = Field(default_factory=TransferConfig)

    @model_validator(mode="after")
    def _sizes_and_settings_tell_something(self) -> Self:
        if self.transfer.larger == self.model.size:
            raise ValueError(
                f"transfer.larger and model.size are both {self.model.size}, expected two sizes; change one of them"
            )
        if len(self.compare.arms) < _FEWEST_ARMS:
            raise ValueError(
                f"compare.arms names {len(self.compare.arms)} settings, expected {_FEWEST_ARMS} or more: the rank "
                "correlation of fewer says nothing; name more"
            )
        return self
