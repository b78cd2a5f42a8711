"""Recipes are compared at one size: as many parameters, and the records and seeds of all."""

from __future__ import annotations

import pytest

from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.recipes import RECIPES
from mlim_ray.config.recipes_run import RecipesConfig, RecipesRunConfig
from mlim_ray.model import MlimConfig, MlimModel


def num_parameters(config: RecipesRunConfig, arm: str) -> int:
    model = config.cell(arm, 0).model
    shape = MlimConfig.of(model, vocab_size=3_000, mask_token_id=4, pad_token_id=0, max_tokens=24)
    return sum(weight.numel() for weight in MlimModel(shape).parameters())


def run_config(**compare: object) -> RecipesRunConfig:
    return RecipesRunConfig.model_validate({"model": {"size": "tiny"}, "compare": compare})


@pytest.mark.parametrize("arm", RECIPES)
def test_every_recipe_has_as_many_parameters(arm: str) -> None:
    config = run_config()
    assert num_parameters(config, arm) == pytest.approx(num_parameters(config, "mlim"), rel=0.1)


def test_experts_are_as_wide_as_eves_where_that_is_asked_for() -> None:
    config = run_config(same_parameters=False)
    assert num_parameters(config, "eve_style") > 2 * num_parameters(config, "mlim")


def test_all_recipes_are_compared_unless_some_are_named() -> None:
    assert RecipesConfig().arms == tuple(RECIPES)


def test_narrow_experts_do_not_start_from_bert() -> None:
    config = RecipesRunConfig.model_validate({"model": {"size": "base", "bert_checkpoint": "bert"}})
    assert config.cell("eve_style", 0).model.encoder.expert_width_ratio == 1.0
    with pytest.raises(ValueError, match="leave bert_checkpoint or the ratio out"):
        with_knobs(config.cell("eve_style", 0), {"model.encoder.expert_width_ratio": 0.125})
