"""Activation checkpointing keeps less and changes nothing."""

from __future__ import annotations

import pytest
import torch

from mlim_ray.training.batch import make_batch
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records


def learn(*, activation_checkpointing: bool, dropout_ratio: float, pre_norm: bool) -> tuple[torch.Tensor, int]:
    """The gradient of a step, and the most values that autograd kept for it at a time."""
    config = make_config(
        train={"num_steps": 2, "activation_checkpointing": activation_checkpointing},
        model={"dropout_ratio": dropout_ratio},
    )
    model = make_model(num_hidden_layers=4, dropout_ratio=dropout_ratio, pre_norm=pre_norm)
    trainer = Trainer(model, config, make_order(config, 16))
    batch = make_batch(make_records(16), 0, make_masking(config))
    kept = set[int]()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (kept.add(x.untyped_storage().data_ptr()), x)[1], lambda x: x
    ):
        trainer.run(iter([batch]), 1, [].append)
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]), len(kept)


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("dropout_ratio", [0.0, 0.2])
def test_gradients_are_equal_and_less_is_kept(dropout_ratio: float, pre_norm: bool) -> None:
    plain, kept = learn(activation_checkpointing=False, dropout_ratio=dropout_ratio, pre_norm=pre_norm)
    saving, kept_saving = learn(activation_checkpointing=True, dropout_ratio=dropout_ratio, pre_norm=pre_norm)
    assert torch.equal(saving, plain)
    assert kept_saving < 0.7 * kept
