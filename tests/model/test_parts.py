"""What every part of a model promises, whatever its neighbours: padding changes nothing, and all of it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from mlim_ray.model import MlimModel
from mlim_ray.model.pretrained import MlimPreTrainedModel
from tests.builders import VOCAB_SIZE, make_model
from tests.model.parts import BLANKED, PARTS, make_inputs, total_loss

pytestmark = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())


@torch.inference_mode()
def test_padding_and_other_records_change_no_output(parts: dict[str, Any]) -> None:
    model, inputs = make_model(**parts).eval(), make_inputs()
    before = model.encode(*inputs[:5])
    ids = inputs.token_ids_BT.clone()
    ids[~inputs.token_present_BT] = torch.randint(VOCAB_SIZE, (int((~inputs.token_present_BT).sum()),))
    after = model.encode(inputs.pixels_B3HW, ids, *inputs[2:5])
    assert torch.equal(before.cells_BND, after.cells_BND) and torch.equal(before.tokens_BTD, after.tokens_BTD)
    for record in (0, 3, 7):
        count = int(inputs.token_present_BT[record].sum())
        cut = [part[record : record + 1] for part in inputs[:5]]
        alone = model.encode(cut[0], cut[1][:, :count], cut[2][:, :count], cut[3], cut[4][:, :count])
        torch.testing.assert_close(alone.cells_BND[0], before.cells_BND[record], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.tokens_BTD[0], before.tokens_BTD[record, :count], rtol=1e-4, atol=1e-5)


def test_every_weight_has_a_gradient(parts: dict[str, Any]) -> None:
    model = make_model(**parts)
    loss = total_loss(model, make_inputs(24))
    loss.backward()
    assert loss.isfinite() and loss > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_a_record_without_any_target_still_reaches_every_weight(parts: dict[str, Any]) -> None:
    model, inputs = make_model(**parts), make_inputs()
    nothing = (torch.zeros_like(inputs.cell_hidden_BN), torch.zeros_like(inputs.token_hidden_BT))
    logits, picture = model(*inputs[:3], *nothing)
    (logits.sum() + 0.0 * picture.sum()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_the_loss_falls(parts: dict[str, Any]) -> None:
    model, inputs = make_model(**parts), make_inputs(24)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = total_loss(model, inputs)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_saved_model_is_the_same_model(parts: dict[str, Any], tmp_path: Path) -> None:
    model, inputs = make_model(**parts).eval(), make_inputs()
    MlimPreTrainedModel.of(model).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.shape == model.config
    with torch.inference_mode():
        for ours, theirs in zip(model(*inputs[:5]), MlimModel.forward(loaded, *inputs[:5]), strict=True):
            assert torch.equal(ours, theirs)


@torch.inference_mode()
def test_what_is_hidden_cannot_leak_unless_a_deep_cnn_lets_it(parts: dict[str, Any]) -> None:
    model, inputs = make_model(**parts).eval(), make_inputs(24)
    hidden_pixels = inputs.cell_hidden_BN.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    pixels = torch.where(hidden_pixels, torch.rand_like(inputs.pixels_B3HW), inputs.pixels_B3HW)
    before, after = model(*inputs[:5])[1], model(pixels, *inputs[1:5])[1]
    leaks = parts.get("embedder_kind") == "deep_cnn" and parts != BLANKED
    assert torch.equal(before, after) != leaks
