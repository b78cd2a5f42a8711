"""The whole config of a comparison of fine-tunings on pairs."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mlim_ray.config.base import Section
from mlim_ray.config.in_run import refuse_in_run
from mlim_ray.config.pairs import PairsConfig
from mlim_ray.config.run import PretrainConfig


class StartsConfig(Section):
    """What fine-tunings start from: the paper's ablation of its objectives."""

    arms: Annotated[tuple[Literal["recon", "itm", "recon+itm"], ...], Field(min_length=1)] = ("recon",)
    """pre-trainings beside MLM: recon (the paper's, as all other knobs say), itm (in place of RECON; paper: PR AUC
    0.855 against 0.884), or recon+itm (paper: no further gain)"""

    @field_validator("arms")
    @classmethod
    def _each_once(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(arms)) < len(arms):
            raise ValueError(f"given {', '.join(arms)}, expected each once; leave the second out")
        return arms


class PairsRunConfig(PretrainConfig):
    """Pre-training runs, and the fine-tunings on pairs that start from them."""

    pairs: PairsConfig = Field(default_factory=PairsConfig)
    starts: StartsConfig = Field(default_factory=StartsConfig)

    @model_validator(mode="after")
    def _measured_at_its_end(self) -> Self:
        refuse_in_run(self.evaluate)
        return self
