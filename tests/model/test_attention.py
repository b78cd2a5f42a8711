"""The attention that is shown is the attention that the model computes with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.model.attention import last_attention
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import NUM_CELLS, make_config, make_masking, make_model, make_records


def make_inputs() -> BatchTensors:
    return to_tensors(make_batch(make_records(12), 0, make_masking(make_config())), torch.device("cpu"))


@pytest.mark.parametrize("pre_norm", [True, False])
@torch.inference_mode()
def test_values_mixed_by_the_weights_are_what_the_layer_gives(pre_norm: bool) -> None:
    model, inputs = make_model(pre_norm=pre_norm).eval(), make_inputs()
    seen = {}
    attention = model.encoder.layers[-1].attention
    handle = attention.register_forward_hook(lambda module, given, out: seen.update(given=given, out=out))
    model.encode(*inputs[:5])
    handle.remove()
    x_PD, layout, num_rows = seen["given"]
    weights = last_attention(model, *inputs[:5])
    _, _, values = attention.projections(x_PD, layout)
    mixed = layout.pack((weights @ values).transpose(1, 2).flatten(2), num_rows)
    torch.testing.assert_close(attention.output(mixed), seen["out"], rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_weights_are_shares_and_padding_has_none() -> None:
    model, inputs = make_model().eval(), make_inputs()
    weights = last_attention(model, *inputs[:5])
    present = torch.cat([torch.ones(12, NUM_CELLS, dtype=torch.bool), inputs.token_present_BT], 1)
    assert not present.all()
    np.testing.assert_allclose(weights.sum(-1).numpy(), 1.0, rtol=1e-5)
    assert not weights.transpose(1, 3)[~present].any()
    alone = last_attention(model, *(part[2:3, :] for part in inputs[:5]))
    torch.testing.assert_close(alone[0], weights[2], rtol=1e-4, atol=1e-6)
    assert not model.encoder.layers[-1].attention._forward_pre_hooks
