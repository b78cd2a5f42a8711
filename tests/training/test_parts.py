"""A share of a batch in parts: nothing is lost, and the targets are those that the losses count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.objectives import Losses, mlm_terms, recon_terms
from mlim_ray.training.batch import make_batch
from mlim_ray.training.parts import split_batch
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.tensors import to_tensors
from mlim_ray.training.trainer import Trainer
from tests.builders import figures, make_config, make_masking, make_model, make_order, make_records


@settings(deadline=None, max_examples=40)
@given(num_records=st.integers(0, 20), most=st.none() | st.integers(1, 25))
def test_the_parts_are_the_batch(num_records: int, most: int | None) -> None:
    batch = make_batch(make_records(num_records), 3, make_masking(make_config()))
    parts = list(split_batch(batch, most))
    assert len(parts) >= 1 and all(len(part.key_hash_B) <= (most or num_records) for part in parts)
    for whole, pieces in zip(batch, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("target", ["whole", "masked"])
@pytest.mark.parametrize("num_records", [0, 1, 17])
def test_targets_known_from_the_masks_are_those_of_the_losses(target: str, num_records: int) -> None:
    batch = make_batch(make_records(num_records), 3, make_masking(make_config()))
    inputs = to_tensors(batch, torch.device("cpu"))
    num_pieces = int(inputs.token_hidden_BT.sum())
    mlm = mlm_terms(torch.zeros(num_pieces, 40), inputs.token_ids_BT, inputs.token_hidden_BT)
    recon = recon_terms(inputs.pixels_B3HW, inputs.pixels_B3HW, inputs.cell_hidden_BN, target)
    losses = Losses(make_model(), make_config(recon={"target": target}))
    counted = losses.num_targets(batch.cell_hidden_BN, batch.token_hidden_BT)
    assert counted == [float(mlm.count_B.sum()), float(recon.count_B.sum())]


@pytest.mark.parametrize("micro_batch_size", [1, 3, 5, 16, 40])
@pytest.mark.parametrize("target", ["whole", "masked"])
def test_accumulated_gradients_are_those_of_the_whole_batch(micro_batch_size: int, target: str) -> None:
    def learn(size: int | None) -> tuple[list[dict[str, float]], torch.Tensor]:
        config = make_config(
            train={"num_steps": 6, "log_every_steps": 1, "micro_batch_size": size}, recon={"target": target}
        )
        order = make_order(config, 50)
        batches = resident_batches(make_records(50), order, make_masking(config), range(order.num_lanes), 0, 6)
        trainer, lines = Trainer(make_model(), config, order), []
        trainer.run(batches, 6, lines.append)
        return [figures(line) for line in lines], torch.cat([p.grad.flatten() for p in trainer.model.parameters()])

    (whole, gradient), (parts, summed) = learn(None), learn(micro_batch_size)
    for a, b in zip(whole, parts, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    torch.testing.assert_close(summed, gradient, rtol=1e-4, atol=1e-6)
