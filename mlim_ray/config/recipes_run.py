"""The whole config of a comparison of recipes."""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import AUTO
from mlim_ray.config.compare import CompareConfig, CompareRunConfig
from mlim_ray.config.encoders import MixtureConfig
from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.recipes import RECIPES, Recipe, recipe_of, with_recipe
from mlim_ray.config.run import PretrainConfig

_NAME = re.compile(r"([a-z0-9_]+)(?:@([0-9.]+))?")


class RecipesConfig(CompareConfig):
    """What is compared: every recipe with every seed, all over the same records in the same order."""

    arms: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(RECIPES)
    """recipes, the first is what the others are compared with; NAME@FACTOR is one whose learning rate is that many
    times the size's own"""
    num_seeds: int = Field(3, ge=1)
    """seeds of every recipe, from train.seed on; the same for all of them"""
    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)] = (0.33, 1.0, 3.0)
    """learning rates that each recipe is tuned over, by the size's own; a single one: none is tuned"""
    tuning_steps: Annotated[int, Field(ge=1)] | None = None
    """steps of a tuning run; none: as many as of a compared one"""
    same_parameters: bool = True
    """whether a mixture's experts are so narrow that a layer has as many parameters as the plain one; false: each is as
    wide as that, as in EVE and as BERT weights need it, and the model is larger than the others"""

    @model_validator(mode="after")
    def _arms_are_settings(self) -> Self:
        for name in self.arms:
            try:
                parted(name)
            except ValueError as error:
                raise ValueError(f"arms: {error}") from error
        twice = next((name for name in self.arms if self.arms.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"arms: {twice} is given twice, expected every recipe once; leave one out")
        return self


class RecipesRunConfig(CompareRunConfig):
    """Pre-training runs that differ in their recipe, its learning rate and their seed."""

    compare: RecipesConfig = Field(default_factory=RecipesConfig)

    @model_validator(mode="after")
    def _intervals_need_seeds(self) -> Self:
        if self.compare.num_seeds < 2 and not any("@" in arm for arm in self.compare.arms):
            raise ValueError("compare.num_seeds is 1, expected 2 or more, for a figure is given with its interval")
        return self

    @model_validator(mode="after")
    def _own_masking_is_compared(self) -> Self:
        """Settings of its own would be some recipes' and not others'."""
        values, default = self.model_dump(), PretrainConfig().model_dump()
        for section in ("masking", "resolution", "mlm", "recon", "itm", "itc", "balance"):
            if values[section] != default[section]:
                raise ValueError(
                    f"{section} is not MLIM's, and each recipe brings its own; leave --{section}.* out, or compare "
                    "runs of your own with mlim-ray compare"
                )
        if self.model.init_from is not None and any(
            knob.startswith("model.") for arm in self.compare.arms for knob in parted(arm)[0].knobs
        ):
            raise ValueError(
                f"model.init_from is {self.model.init_from}, and some of {', '.join(self.compare.arms)} are models of "
                "other parts, which cannot start from it; leave it out, or those"
            )
        return self

    def cell(self, arm: str, seed: int) -> PretrainConfig:
        """The config of one run."""
        recipe, factor = parted(arm)
        values = self.model_dump(include=set(PretrainConfig.model_fields))
        values["train"]["seed"] = seed
        if self.train.learning_rate != AUTO:
            values["train"]["learning_rate"] = factor * self.train.learning_rate
        config = with_recipe(PretrainConfig.model_validate(values), recipe.name)
        encoder = config.model.encoder
        narrow = self.compare.same_parameters and self.model.bert_checkpoint is None
        if narrow and isinstance(encoder, MixtureConfig):
            return with_knobs(config, {"model.encoder.expert_width_ratio": 1.0 / encoder.num_experts})
        return config


def parted(arm: str) -> tuple[Recipe, float]:
    """The recipe of an arm, and what its learning rate is multiplied by. Raises ValueError for no arm."""
    match = _NAME.fullmatch(arm)
    try:
        factor = float(match[2] or 1.0) if match else 0.0
    except ValueError:
        factor = 0.0
    if match is None or not 0.0 < factor < 1e6:
        raise ValueError(f"given {arm}, expected a recipe such as eve_style, or eve_style@0.33")
    return recipe_of(match[1]), factor
