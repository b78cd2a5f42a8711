"""Recipes are whole settings: valid for a run and for a search, told apart, and named where one is misspelt."""

from __future__ import annotations

import json

import pytest

from mlim_ray.command_line.experiment import parse_pretrain, parse_search
from mlim_ray.command_line.main import main
from mlim_ray.config import PretrainConfig, SearchRunConfig
from mlim_ray.config.files import config_text, parse_config
from mlim_ray.config.recipes import RECIPES, with_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_with_a_run_a_search_and_a_file(name: str) -> None:
    config = with_recipe(PretrainConfig(), name)
    assert parse_config(config_text(config).encode(), "f.yaml", PretrainConfig()) == config
    search = with_recipe(SearchRunConfig(), name)
    assert search.recon == config.recon and search.masking == config.masking
    # With the learning rate of a size, the space has a range for every knob that it holds.
    train = search.train.model_copy(update={"learning_rate": 1e-3})
    space = search.model_copy(update={"train": train}).dimensions
    assert space["recon.weight"].holds(config.recon.weight)
    recipe = RECIPES[name]
    assert recipe.source and recipe.about and recipe.cost and recipe.differs


def test_mlim_is_the_default_and_no_two_recipes_are_the_same() -> None:
    configs = [with_recipe(PretrainConfig(), name) for name in RECIPES]
    assert configs[0] == PretrainConfig()
    assert len({config.model_dump_json() for config in configs}) == len(configs)


def test_flags_are_laid_over_a_recipe() -> None:
    request = parse_pretrain(
        "--recipe eve_style --masking.text-ratio 0.4 --model.encoder.num-experts 4 --data x --dry-run".replace(
            "--data x", "--data generated:20"
        ).split(),
        PretrainConfig,
        recipes=True,
    )
    assert request.config.masking.text_ratio == 0.4 and request.config.masking.image_ratio == 0.75
    assert request.config.model.encoder.num_experts == 4 and request.config.recon.kind == "normalised"


def test_the_parts_of_a_recipe_are_open_to_the_search() -> None:
    space = "model.encoder.num_used=1|2,balance.weight=0.0001..0.1:log,recon.kind=normalised|hog,itm.weight=0|1"
    argv = ["--recipe", "eve_style", "--space", space, "--dry-run", "--data", "generated:20"]
    request = parse_search(argv, SearchRunConfig)
    assert request.config.model.encoder.kind == "mixture" and len(request.config.search.space) == 4


def test_a_misspelt_recipe_is_named() -> None:
    with pytest.raises(ValueError, match="^--recipe: given eve_stile, expected one of mlim, .*did you mean eve_style"):
        parse_pretrain(["--recipe", "eve_stile", "--dry-run"], PretrainConfig, recipes=True)


def test_the_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipes"])
    told = " ".join(capsys.readouterr().out.split())
    for recipe in RECIPES.values():
        assert recipe.name in told and recipe.source in told and recipe.cost in told
    main(["recipes", "--json"])
    assert list(json.loads(capsys.readouterr().out.splitlines()[-1])) == list(RECIPES)
