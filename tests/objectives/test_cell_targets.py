"""Normalised pixels and features: the targets by hand, and whose cells count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlim_ray.config import FeatureReconConfig, NormalisedReconConfig
from mlim_ray.objectives import Losses
from mlim_ray.objectives.features import Features
from mlim_ray.objectives.normalised import Normalised
from mlim_ray.training.batch import make_batch
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.tensors import to_tensors
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records, timeless

CPU = torch.device("cpu")


def test_normalised_values_are_those_of_mae() -> None:
    model = make_model()
    inputs = to_tensors(make_batch(make_records(3), 0, make_masking(make_config())), CPU)
    pixels = torch.rand(3, 3, 16, 16)
    targets = Normalised(NormalisedReconConfig(), model.config).targets(model, inputs._replace(pixels_B3HW=pixels))
    for row in range(4):
        for column in range(4):
            patch = pixels[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1).numpy()
            expected = (patch - patch.mean(1, keepdims=True)) / np.sqrt(patch.var(1, ddof=1, keepdims=True) + 1e-6)
            np.testing.assert_allclose(targets[:, 4 * row + column].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["whole", "masked"])
def test_the_error_is_the_mean_over_the_cells_that_count(target: str) -> None:
    model = make_model()
    inputs = to_tensors(make_batch(make_records(5), 0, make_masking(make_config())), CPU)
    objective = Normalised(NormalisedReconConfig(target=target), model.config)
    states, targets = torch.randn(5, 16, 32), torch.randn(5, 16, 48)
    terms = objective.errors(states, targets, inputs.cell_hidden_BN)
    error = (objective.head(states) - targets).square().mean(2)
    counted = inputs.cell_hidden_BN if target == "masked" else torch.ones(5, 16, dtype=torch.bool)
    torch.testing.assert_close(terms.sum_B, (error * counted).sum(1))
    assert terms.count_B.tolist() == counted.sum(1).tolist()
    assert objective.num_targets(inputs.cell_hidden_BN.numpy(), inputs.token_hidden_BT.numpy()) == counted.sum()


def test_the_copy_starts_as_the_model_and_follows_it() -> None:
    model = make_model(seed=1)
    objective = Features(FeatureReconConfig(decay=0.75), make_model(seed=2))
    objective.begin(model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    objective.after_step(model)
    for name, weight in objective.teacher.state_dict().items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * model.state_dict()[name])


def test_the_copy_is_shown_everything_and_learns_nothing_by_itself() -> None:
    model = make_model()
    objective = Features(FeatureReconConfig(), model)
    inputs = to_tensors(make_batch(make_records(4), 0, make_masking(make_config())), CPU)
    shown = inputs._replace(
        cell_hidden_BN=torch.zeros_like(inputs.cell_hidden_BN), token_hidden_BT=torch.zeros_like(inputs.token_hidden_BT)
    )
    states = model.eval().encode(*shown[:5]).cells_BND
    expected = (states - states.mean(2, keepdim=True)) / (states.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    targets = objective.targets(model, inputs)
    torch.testing.assert_close(targets, expected, rtol=1e-3, atol=1e-4)
    assert not targets.requires_grad
    assert not any(weight.requires_grad for weight in objective.teacher.parameters())


@pytest.mark.parametrize(
    "sections",
    [
        {"recon": {"kind": "features"}},
        {"recon": {"kind": "hog", "pixels": 4}, "itm": {"weight": 1.0}},
        {"recon": {"kind": "normalised"}, "itc": {"weight": 1.0}},
    ],
)
def test_a_resumed_run_repeats_the_uninterrupted_one_with_all_that_is_trained_beside(
    tmp_path: Path, sections: dict[str, dict[str, object]]
) -> None:
    config = make_config(train={"num_steps": 8, "log_every_steps": 4}, **sections)
    records, order = make_records(50), make_order(config, 50)

    def batches(start: int) -> object:
        return resident_batches(records, order, make_masking(config), range(order.num_lanes), start, 8)

    whole, lines = Trainer(make_model(), config, order), []
    whole.run(batches(0), 8, lines.append)
    first, store = Trainer(make_model(), config, order), CheckpointStore(str(tmp_path))
    first.run(batches(0), 5, [].append)
    store.save(5, first.model.state_dict(), first.state())
    checkpoint = store.latest().checkpoint
    assert checkpoint is not None
    second, after = Trainer(make_model(seed=7), config, order), []
    second.model.load_state_dict(checkpoint.weights)
    second.load_state(checkpoint.trainer_state)
    second.run(batches(5), 8, after.append)
    assert timeless(after) == timeless(lines)[-1:]
    for name, weight in whole.losses.state_dict().items():
        assert torch.equal(second.losses.state_dict()[name], weight), name


def test_a_listening_decoder_teaches_the_encoder_nothing() -> None:
    def weights(recon_weight: float) -> dict[str, torch.Tensor]:
        config = make_config(
            train={"num_steps": 1, "max_gradient_norm": 1e9}, recon={"detached": True, "weight": recon_weight}
        )
        trainer = Trainer(make_model(), config, make_order(config, 16))
        trainer.run(iter([make_batch(make_records(16), 0, make_masking(config))]), 1, [].append)
        return {name: p.grad.clone() for name, p in trainer.model.named_parameters()}

    little, much = weights(1.0), weights(100.0)
    for name, gradient in little.items():
        if name.startswith("image_decoder"):
            torch.testing.assert_close(100 * gradient, much[name], rtol=1e-3, atol=1e-6)
        else:
            torch.testing.assert_close(gradient, much[name])


def test_what_is_trained_beside_the_model_leaves_its_own_start_alone() -> None:
    for sections in ({}, {"itm": {"weight": 1.0}}, {"recon": {"kind": "normalised"}}):
        torch.manual_seed(5)
        Losses(make_model(), make_config(**sections))
        torch.manual_seed(5)
        make_model()
        state = torch.get_rng_state()
        torch.manual_seed(5)
        losses = Losses(make_model(), make_config(**sections))
        assert torch.equal(torch.get_rng_state(), state)
        for name, weight in make_model().state_dict().items():
            assert torch.equal(losses.model.state_dict()[name], weight)
