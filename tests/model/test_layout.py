"""Rows and places: nothing is lost between them, and padding gives and takes nothing."""

from __future__ import annotations

import pytest
import torch

from mlim_ray.model.layout import Layout
from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import NUM_CELLS, make_config, make_masking, make_model, make_records

INPUTS = to_tensors(make_batch(make_records(12), 0, make_masking(make_config())), torch.device("cpu"))
MASKS = (INPUTS.token_present_BT, INPUTS.cell_hidden_BN, INPUTS.token_hidden_BT)
PRESENT_BS = torch.cat([torch.ones_like(INPUTS.cell_hidden_BN), INPUTS.token_present_BT], 1)


def test_rows_are_the_present_positions_in_the_promised_order() -> None:
    layout = Layout.of(*MASKS)
    x_BSD = torch.randn(*PRESENT_BS.shape, 3)
    rows = layout.pack(x_BSD, len(layout.place_P))
    cells, tokens = x_BSD[:, :NUM_CELLS], x_BSD[:, NUM_CELLS:]
    visible = INPUTS.token_present_BT & ~INPUTS.token_hidden_BT
    expected = torch.cat([cells.flatten(0, 1), tokens[INPUTS.token_hidden_BT], tokens[visible]])
    assert torch.equal(rows, expected)
    assert layout.num_targets == cells.shape[0] * NUM_CELLS + int(INPUTS.token_hidden_BT.sum()) < len(rows)
    assert torch.equal(layout.pack(x_BSD, layout.num_targets), expected[: layout.num_targets])
    assert torch.equal(layout.unpack(rows)[PRESENT_BS], x_BSD[PRESENT_BS])


@pytest.mark.parametrize("all_rows", [True, False])
def test_gradients_are_those_of_plain_indexing(all_rows: bool) -> None:
    layout = Layout.of(*MASKS)
    num_rows = len(layout.place_P) if all_rows else layout.num_targets
    x_PD = torch.randn(len(layout.place_P), 3, requires_grad=True)
    # As attention does: padding is looked at by nobody, but is a number all the same.
    weight_BS1 = torch.randn(*PRESENT_BS.shape, 1)
    ours = layout.pack(layout.unpack(x_PD).square() * weight_BS1, num_rows)
    plain = (x_PD.square() * weight_BS1.flatten(0, 1)[layout.place_P])[:num_rows]
    scale = torch.randn_like(plain)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad((scale * each).sum(), x_PD)[0] for each in (ours, plain)))


@torch.inference_mode()
def test_the_last_layer_leaves_out_only_what_no_loss_needs() -> None:
    model = make_model().eval()
    states = model.encode(*INPUTS[:5])
    logits, picture = model(*INPUTS[:5])
    torch.testing.assert_close(logits, model.mlm_logits(states.tokens_BTD[INPUTS.token_hidden_BT]))
    torch.testing.assert_close(picture, model.reconstruct(states.cells_BND))
    assert not states.tokens_BTD[~INPUTS.token_present_BT].any()


@torch.inference_mode()
@pytest.mark.parametrize("record", [0, 7])
def test_a_record_that_is_no_number_spoils_no_other(record: int) -> None:
    pixels = INPUTS.pixels_B3HW.clone()
    pixels[record] = float("nan")
    nothing = torch.zeros_like(INPUTS.cell_hidden_BN)
    _, picture = make_model().eval()(pixels, *INPUTS[1:3], nothing, INPUTS.token_hidden_BT)
    spoilt = picture.isnan().flatten(1).any(1)
    assert spoilt.nonzero().flatten().tolist() == [record]
