"""Removing hidden cells is keeping everybody from looking at them, at less cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mlim_ray.config import ModelConfig
from mlim_ray.model import MlimConfig
from mlim_ray.model.encoder import Encoder
from mlim_ray.model.encoders.removal import without_hidden_cells
from mlim_ray.model.flops import step_flops
from mlim_ray.model.layout import Layout
from mlim_ray.training.batch import make_batch
from mlim_ray.training.throughput import contents_of
from tests.builders import NUM_CELLS, make_config, make_masking, make_model, make_records
from tests.model.parts import MIXTURE, REMOVING, make_inputs


def by_attention(encoder: Encoder, num_joint_layers: int, x_PD: Tensor, layout: Layout, cells_BN: Tensor) -> Tensor:
    """The same weights on all rows; nobody looks at a hidden cell, and what it makes of itself is thrown away."""
    attend_B11S = layout.attend_B11S.clone()
    attend_B11S[:, 0, 0, :NUM_CELLS] &= ~cells_BN
    blind = layout._replace(attend_B11S=attend_B11S)
    hidden_P = torch.zeros(len(x_PD), dtype=torch.bool)
    hidden_P[: cells_BN.numel()] = cells_BN.flatten()
    y_PD = x_PD
    for layer in encoder.layers[:-num_joint_layers]:
        y_PD = layer(y_PD, blind, len(y_PD))
    y_PD = torch.where(hidden_P[:, None], x_PD, y_PD)
    for layer in encoder.layers[-num_joint_layers:]:
        y_PD = layer(y_PD, layout, len(y_PD))
    return encoder.final_norm(y_PD)


@pytest.mark.parametrize("num_joint_layers", [1, 2])
@pytest.mark.parametrize("parts", [{}, {"pre_norm": False}, MIXTURE], ids=str)
def test_removal_is_attention_masking(parts: dict[str, Any], num_joint_layers: int) -> None:
    model = make_model(**REMOVING | parts | {"num_joint_layers": num_joint_layers})
    inputs = make_inputs()
    nothing_hidden = ~inputs.cell_hidden_BN.any(1)
    assert nothing_hidden.any() and inputs.cell_hidden_BN.sum(1).max() > NUM_CELLS // 2
    x_PD = torch.randn(len(inputs.layout.place_P), 32, requires_grad=True)
    for num_rows in (len(x_PD), inputs.layout.num_targets):
        ours = model.encoder(x_PD, inputs.layout, num_rows)
        expected = by_attention(model.encoder, num_joint_layers, x_PD, inputs.layout, inputs.cell_hidden_BN)
        torch.testing.assert_close(ours, expected[:num_rows], rtol=1e-4, atol=1e-5)
        scale = torch.randn_like(ours)
        weights = [x_PD, *model.encoder.parameters()]
        found = torch.autograd.grad((scale * ours).sum(), weights, allow_unused=True)
        wanted = torch.autograd.grad((scale * expected[:num_rows]).sum(), weights, allow_unused=True)
        for one, other in zip(found, wanted, strict=True):
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_with_nothing_hidden_removal_changes_nothing() -> None:
    removing, plain = make_model(**REMOVING).eval(), make_model(num_hidden_layers=3).eval()
    plain.load_state_dict(removing.state_dict())
    inputs = make_inputs()
    shown = (*inputs[:3], torch.zeros_like(inputs.cell_hidden_BN), inputs.token_hidden_BT)
    for ours, theirs in zip(removing(*shown), plain(*shown), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_the_rows_that_are_left_lie_close_together() -> None:
    inputs = make_inputs()
    kept, visible = without_hidden_cells(inputs.layout)
    present = torch.cat([~inputs.cell_hidden_BN, inputs.token_present_BT], 1)
    assert visible.row_BS.shape == (12, int(present.sum(1).max()))
    x_PD = torch.randn(len(inputs.layout.place_P), 3)
    whole, narrow = inputs.layout.unpack(x_PD), visible.unpack(x_PD[kept])
    for record in range(12):
        count = int(present[record].sum())
        assert torch.equal(narrow[record, :count], whole[record, present[record]])
        assert visible.attend_B11S[record, 0, 0].sum() == count
    assert torch.equal(visible.pack(narrow, len(kept)), x_PD[kept])


@torch.inference_mode()
def test_a_picture_that_is_hidden_whole_is_told_by_the_text_alone() -> None:
    model, inputs = make_model(**REMOVING).eval(), make_inputs()
    hidden = torch.ones_like(inputs.cell_hidden_BN)
    shown = (*inputs[:3], hidden, torch.zeros_like(inputs.token_hidden_BT))
    _, picture = model(*shown)
    assert torch.equal(picture, model(torch.rand_like(inputs.pixels_B3HW), *shown[1:])[1])
    other_ids = inputs.token_ids_BT.flip(0)
    assert not torch.allclose(picture, model(shown[0], other_ids, *shown[2:])[1])


def test_removing_most_cells_saves_most_of_the_work() -> None:
    masking = {"kind": "independent", "image_ratio": 0.75, "text_ratio": 0.15}
    config = make_config(masking=masking)
    contents = contents_of(make_batch(make_records(64), 0, make_masking(config)))
    flops = {}
    for joint in (None, 1):
        model = ModelConfig(size="small", num_joint_layers=joint)
        shape = MlimConfig.of(model, vocab_size=300, mask_token_id=4, pad_token_id=0, max_tokens=10)
        # The builders' records have fewer cells than the size: what is compared is a share.
        cells = {"num_cells": 64 * 49, "num_visible_cells": 64 * (49 * 0.25)}
        many = contents._replace(**cells, num_pairs=64 * 56**2, num_visible_pairs=64 * 19**2)
        flops[joint] = step_flops(shape, many)
    assert flops[1] < 0.6 * flops[None]


def test_more_joint_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="num_joint_layers is 4, and the encoder has 3 layers"):
        make_model(num_hidden_layers=3, num_joint_layers=4)
