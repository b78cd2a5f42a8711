"""The whole config of a comparison of masking settings."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import Section
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.config.in_run import refuse_in_run
from mlim_ray.config.masking import MamConfig
from mlim_ray.config.masking_arms import OWN, masking_arm
from mlim_ray.config.run import PretrainConfig


class CompareConfig(Section):
    """What is compared: every setting with every seed, all with the same budget."""

    arms: Annotated[tuple[str, ...], Field(min_length=2)] = (
        "mam",
        "alternating",
        "independent-15",
        "independent-50",
        "independent-80",
    )
    """masking settings, the first is what the others are compared with: mam, alternating, one of them or independent
    with a per cent, such as mam-60 or independent-50, or own for what --masking.* give"""
    num_seeds: int = Field(3, ge=2)
    """seeds of every setting, from train.seed on; the same for all of them"""
    tasks: tuple[str, ...] = ()
    """tasks of mlim-ray evaluate that every model is measured by as well; nothing: the two probes alone"""
    task_records: Annotated[int, Field(ge=16)] | None = None
    """most training records of a task; none: each task's own number. At their own numbers and epochs, the tasks of a
    tiny model take several times as long as its pre-training"""
    fine_tune_epochs: Annotated[float, Field(gt=0.0)] | None = None
    """times that fine-tuning for a task sees each of its examples; none: each task's own number"""
    match: Annotated[tuple[str, ...], Field(min_length=1)] = ("group",)
    """columns that two listings of one product share, for the task pairs"""

    @model_validator(mode="after")
    def _arms_are_settings(self) -> Self:
        for name in self.arms:
            try:
                masking_arm(name, MamConfig())
            except ValueError as error:
                raise ValueError(f"arms: {error}") from error
        twice = next((name for name in self.arms if self.arms.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"arms: {twice} is given twice, expected every setting once; leave one out")
        return self

    @property
    def evaluation(self) -> EvaluateConfig:
        """The tasks as every model is measured by them."""
        records = {} if self.task_records is None else {"num_train": self.task_records}
        epochs = {} if self.fine_tune_epochs is None else {"num_epochs": self.fine_tune_epochs}
        own = EvaluateConfig()

        def shortened(fine_tune: FineTuneConfig) -> FineTuneConfig:
            return fine_tune.model_copy(update=epochs)

        sections: dict[str, dict[str, Any]] = {
            "classification": records | {"fine_tune": shortened(own.classification.fine_tune)},
            "retrieval": records | {"contrastive": shortened(own.retrieval.contrastive)},
            "fill": records,
            "pairs": {"match": self.match, "fine_tune": shortened(own.pairs.fine_tune)},
        }
        changed = {name: getattr(own, name).model_copy(update=update) for name, update in sections.items()}
        return own.model_copy(update=changed | {"tasks": self.tasks})


class CompareRunConfig(PretrainConfig):
    """Pre-training runs that differ in their masking and their seed alone."""

    compare: CompareConfig = Field(default_factory=CompareConfig)

    @model_validator(mode="after")
    def _measured_at_its_end(self) -> Self:
        refuse_in_run(self.evaluate)
        return self

    @model_validator(mode="after")
    def _own_masking_is_compared(self) -> Self:
        if self.masking != MamConfig() and OWN not in self.compare.arms:
            raise ValueError(
                f"compare.arms is {','.join(self.compare.arms)}, without {OWN}, and a masking is given, which none of "
                f"these takes up; add {OWN} to --compare.arms, or leave the masking out"
            )
        return self

    def cell(self, arm: str, seed: int) -> PretrainConfig:
        """The config of one run."""
        values = self.model_dump(include=set(PretrainConfig.model_fields))
        values["masking"] = masking_arm(arm, self.masking).model_dump()
        values["train"]["seed"] = seed
        return PretrainConfig.model_validate(values)

    @property
    def seeds(self) -> range:
        """Of every setting."""
        return range(self.train.seed, self.train.seed + self.compare.num_seeds)
