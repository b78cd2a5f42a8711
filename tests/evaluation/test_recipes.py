"""Every recipe trains on the generated catalogue, and learns to read one side from the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.config.recipes import RECIPES
from mlim_ray.objectives import loss_names
from mlim_ray.objectives.itc import Itc
from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.evaluation.recipe_runs import catalogue, masking_of, own_targets_of, recipe_config, run_recipe

FEW, MANY = 300, 4_000


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_every_loss_of_it_is_logged(name: str) -> None:
    trainer, lines = run_recipe(recipe_config(name, num_steps=12, log_every_steps=3, batch_size=16), FEW)
    assert tuple(trainer.losses.weights) == loss_names(trainer.config)
    logged = {name.split("/")[1] for name in lines[-1] if name.startswith("loss/")} - {"total"}
    assert logged == set(loss_names(trainer.config))
    assert lines[-1]["loss/total"] < 0.97 * lines[0]["loss/total"]
    # A run that compares records, or shows them without a mask, has gradients for all that it trains.
    trained = [weight for weight in trainer.losses.parameters() if weight.requires_grad]
    assert all(weight.grad is not None for weight in trained)


@pytest.mark.parametrize("name", ["m3ae_medical", "eve_style", "semmim_style"])
def test_parts_of_a_batch_give_the_same(name: str) -> None:
    lines = [
        run_recipe(recipe_config(name, num_steps=3, log_every_steps=1, batch_size=16, micro_batch_size=size), FEW)[1]
        for size in (None, 5)
    ]
    for whole, parts in zip(*lines, strict=True):
        for key, value in whole.items():
            if key.startswith("loss/"):
                assert parts[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.torture
@pytest.mark.parametrize("name", RECIPES)
def test_a_wrong_partner_costs_a_trained_model_its_own_hidden_words(name: str) -> None:
    trainer, _ = run_recipe(recipe_config(name, num_steps=800, batch_size=64), MANY)
    found = own_targets_of(trainer, MANY)
    assert found["mlm"].ratio >= 1.2
    # Where some of the picture is left, as nearly everywhere, it tells more of the rest than its title does.
    if name in ("mlim", "semmim_style"):
        assert found["recon"].ratio >= 1.2


@pytest.mark.torture
def test_itc_finds_the_own_picture_of_a_title() -> None:
    trainer, _ = run_recipe(recipe_config("maskvlm_style", num_steps=800, batch_size=64), MANY)
    itc = next(objective for objective in trainer.losses if isinstance(objective, Itc))
    records = catalogue(MANY)[1].records
    inputs = to_tensors(make_batch(records, 0, masking_of(trainer.config)), torch.device("cpu"))
    with torch.inference_mode():
        image, text = (itc.embed(trainer.model.eval(), inputs, side) for side in ("image", "text"))
    nearest = (text @ image.T).argmax(1).numpy()
    assert (nearest == np.arange(len(nearest))).mean() >= 5 / len(nearest)
