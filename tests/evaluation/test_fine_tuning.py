"""The fine-tuning that evaluations share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.evaluation.fine_tuning import fine_tune
from mlim_ray.evaluation.showing import encode_pooled
from mlim_ray.model import SIZES, MlimModel
from mlim_ray.model.sizes import learning_rate_of
from tests.builders import make_model, make_records

CONFIG = FineTuneConfig(num_epochs=2.0, batch_size=8)


def tuned(
    encoder: MlimModel, seed: int = 0, config: FineTuneConfig = CONFIG
) -> tuple[MlimModel, list[tuple[int, int]]]:
    """A copy, trained to bring the pooled states of some records to ones."""
    records = make_records(20)
    copied, told = copy.deepcopy(encoder), list[tuple[int, int]]()

    def loss_of(index: np.ndarray, rng: np.random.Generator) -> Tensor:
        return (encode_pooled(copied, records.take(index), "both") - 1.0).square().mean()

    fine_tune(
        copied, loss_of, 20, config, encoder.config.hidden_size, seed, lambda done, total: told.append((done, total))
    )
    return copied, told


def test_a_copy_of_a_model_that_was_loaded_to_be_asked_is_trained_and_the_model_is_not() -> None:
    frozen = make_model().requires_grad_(False)
    before = copy.deepcopy(frozen.state_dict())
    trained, told = tuned(frozen)
    # What pooled states do not depend on, the heads of pre-training, keeps its weights.
    changed = {name for name, weight in trained.state_dict().items() if not torch.equal(weight, before[name])}
    assert any(name.startswith("encoder") for name in changed) and "word_embeddings.weight" in changed
    assert all(torch.equal(weight, before[name]) for name, weight in frozen.state_dict().items())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert told == [(step, 4) for step in range(1, 5)] and not trained.training


def test_the_seed_decides_the_weights() -> None:
    model = make_model()
    one, same, other = (tuned(model, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_rate_follows_the_width() -> None:
    for shape in SIZES.values():
        assert learning_rate_of(shape.embedder_channels[-1]) == shape.learning_rate
    assert (
        learning_rate_of(200) == SIZES["tiny"].learning_rate and learning_rate_of(2_048) == SIZES["large"].learning_rate
    )
    model = make_model()
    third = CONFIG.model_copy(update={"learning_rate": learning_rate_of(model.config.hidden_size) / 3})
    auto, named = (tuned(model, config=config)[0].state_dict() for config in (CONFIG, third))
    assert all(torch.equal(auto[name], named[name]) for name in auto)
