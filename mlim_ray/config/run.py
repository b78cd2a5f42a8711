"""The whole config of one pre-training run, of one search, and of one prepared set."""

from typing import Self

from pydantic import Field, model_validator

from mlim_ray.config.base import AUTO, Section
from mlim_ray.config.in_run import InRunConfig, refuse_in_run
from mlim_ray.config.masking import MamConfig, MaskingConfig
from mlim_ray.config.model import ModelConfig
from mlim_ray.config.objectives import BalanceConfig, ImageTargetConfig, ItcConfig, ItmConfig, MlmConfig, ReconConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.config.probe import ProbeConfig
from mlim_ray.config.resolution import ResolutionConfig
from mlim_ray.config.search import SearchConfig
from mlim_ray.config.space import Dimension, parse_space
from mlim_ray.config.train import FeedConfig, TrainConfig

_ANY_LEARNING_RATE = 1e-3
"""stands for the size's own where that is not known yet; only its range depends on it"""


class PretrainConfig(Section):
    """Everything that decides what a pre-training run learns."""

    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    masking: MaskingConfig = Field(default_factory=MamConfig)
    resolution: ResolutionConfig = Field(default_factory=ResolutionConfig)
    mlm: MlmConfig = Field(default_factory=MlmConfig)
    recon: ImageTargetConfig = Field(default_factory=ReconConfig)
    itm: ItmConfig = Field(default_factory=ItmConfig)
    itc: ItcConfig = Field(default_factory=ItcConfig)
    balance: BalanceConfig = Field(default_factory=BalanceConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    feed: FeedConfig = Field(default_factory=FeedConfig)
    probe: ProbeConfig = Field(default_factory=ProbeConfig)
    evaluate: InRunConfig = Field(default_factory=InRunConfig)

    @model_validator(mode="after")
    def _evaluated_checkpoints_are_written(self) -> Self:
        if self.evaluate.every_steps % self.train.checkpoint_every_steps:
            raise ValueError(
                f"evaluate.every_steps is {self.evaluate.every_steps}, expected 0 or a multiple of "
                f"train.checkpoint_every_steps, which is {self.train.checkpoint_every_steps}: what is measured is a "
                "checkpoint"
            )
        if self.evaluate.tasks and not self.evaluate.every_steps:
            raise ValueError(
                f"evaluate.tasks is {','.join(self.evaluate.tasks)} and evaluate.every_steps is 0; say how often with "
                "evaluate.every_steps, or evaluate the finished run with mlim-ray evaluate RUN --tasks"
            )
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        # What a listening decoder learns, the encoder does not.
        of_pictures = 0.0 if isinstance(self.recon, ReconConfig) and self.recon.detached else self.recon.weight
        if self.mlm.weight == of_pictures == self.itm.weight == self.itc.weight == 0.0:
            raise ValueError("mlm.weight and recon.weight are both 0; expected at least one above 0 to learn from")
        return self


class SearchRunConfig(PretrainConfig):
    """A search: the config that its trials start from, and what is searched."""

    search: SearchConfig = Field(default_factory=SearchConfig)

    @model_validator(mode="after")
    def _measured_at_its_end(self) -> Self:
        refuse_in_run(self.evaluate)
        return self

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
