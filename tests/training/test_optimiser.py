"""The learning-rate schedule and which weights decay."""

from __future__ import annotations

import math

import pytest

from mlim_ray.training.optimiser import learning_rate_at, make_optimiser
from tests.builders import make_config, make_model


def test_the_learning_rate_rises_then_follows_a_cosine_to_zero() -> None:
    config = make_config(train={"num_steps": 1000, "warmup_ratio": 0.1, "learning_rate": 2.0}).train
    rates = [learning_rate_at(step, config) for step in range(1000)]
    assert rates[:100] == pytest.approx([2.0 * (step + 1) / 100 for step in range(100)])
    assert rates[100:] == pytest.approx([1.0 + math.cos(math.pi * i / 900) for i in range(900)])
    assert rates[99] == rates[100] == max(rates) == 2.0
    assert 0.0 < rates[-1] < 1e-4
    assert learning_rate_at(1000, config) == 0.0


@pytest.mark.parametrize(("num_steps", "warmup_ratio"), [(1, 0.0), (1, 1.0), (2, 0.05), (3, 0.0), (10, 1.0)])
def test_every_step_of_the_shortest_runs_learns(num_steps: int, warmup_ratio: float) -> None:
    config = make_config(train={"num_steps": num_steps, "warmup_ratio": warmup_ratio, "learning_rate": 1.0}).train
    rates = [learning_rate_at(step, config) for step in range(num_steps)]
    assert all(0.0 < rate <= 1.0 for rate in rates)
    assert max(rates) == 1.0


def test_biases_norms_embeddings_and_positions_do_not_decay() -> None:
    model = make_model()
    optimiser = make_optimiser(model, make_config(train={"weight_decay": 0.3, "beta1": 0.8, "beta2": 0.9}).train)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimiser.param_groups)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.3, 0.0]
    assert all(group["betas"] == (0.8, 0.9) for group in optimiser.param_groups)
    assert decayed | spared == set(names.values()) and not decayed & spared
    assert {"word_embeddings.weight", "cell_positions", "token_positions", "embedding_norm.weight"} <= spared
    assert {
        "mlm_head.dense.weight",
        "image_embedder.layers.0.weight",
        "image_decoder.layers.0.weight",
    } <= decayed
    assert not any(name.endswith("bias") or "norm" in name for name in decayed)
