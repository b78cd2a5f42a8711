"""The whole config of one pre-training run, of one search, and of one prepared set."""

from typing import Self

from pydantic import Field, model_validator

from mlim_ray.config.base import AUTO, Section
from mlim_ray.config.masking import MamConfig, MaskingConfig
from mlim_ray.config.model import ModelConfig
from mlim_ray.config.objectives import MlmConfig, ReconConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.config.probe import ProbeConfig
from mlim_ray.config.search import SearchConfig
from mlim_ray.config.space import Dimension, parse_space
from mlim_ray.config.train import FeedConfig, TrainConfig

_ANY_LEARNING_RATE = 1e-3
"""stands for the size's own where that is not known yet; only its range depends on it"""


class PretrainConfig(Section):
    """Everything that decides what a pre-training run learns."""

    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    masking: MaskingConfig = Field(default_factory=MamConfig)
    mlm: MlmConfig = Field(default_factory=MlmConfig)
    recon: ReconConfig = Field(default_factory=ReconConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    feed: FeedConfig = Field(default_factory=FeedConfig)
    probe: ProbeConfig = Field(default_factory=ProbeConfig)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.mlm.weight == 0.0 and self.recon.weight == 0.0:
            raise ValueError("mlm.weight and recon.weight are both 0; expected at least one above 0 to learn from")
        return self


class SearchRunConfig(PretrainConfig):
    """A search: the config that its trials start from, and what is searched."""

    search: SearchConfig = Field(default_factory=SearchConfig)

    @model_validator(mode="after")
    def _space_fits(self) -> Self:
        # Trials start from the config without its search; checking that one keeps this from calling itself.
        base = PretrainConfig.model_validate(self.model_dump(exclude={"search"}))
        try:
            parse_space(self.search.space, base, _ANY_LEARNING_RATE)
        except ValueError as error:
            raise ValueError(f"search.space: {error}") from error
        return self

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Every parameter of the search with what it may be; the size must be resolved."""
        learning_rate = self.train.learning_rate
        assert learning_rate != AUTO, "configs are resolved before a search starts"
        base = PretrainConfig.model_validate(self.model_dump(exclude={"search"}))
        return parse_space(self.search.space, base, learning_rate)
