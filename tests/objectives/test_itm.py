"""ITM by hand: who is shown whose title, and what the head's answer costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config import ItmConfig
from mlim_ray.objectives import Pass, Peers
from mlim_ray.objectives.itm import Itm, shown_titles
from mlim_ray.training.batch import make_batch
from mlim_ray.training.peers import meet
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_model, make_records

CPU = torch.device("cpu")


def peers_of(num_records: int, epoch: int = 0, seed: int = 0) -> Peers:
    batch = make_batch(make_records(num_records), epoch, make_masking(make_config()))
    return meet(batch, seed, CPU, in_parts=False).peers(0, num_records)


@given(num_records=st.integers(1, 40), epoch=st.integers(0, 3), ratio=st.sampled_from([0.2, 0.5, 0.9]))
def test_a_wrong_title_is_another_records_and_an_equal_one_is_right(num_records: int, epoch: int, ratio: float) -> None:
    peers = peers_of(num_records, epoch)
    title_B, is_own_B = shown_titles(peers, ratio)
    titles = [tuple(row) for row in peers.token_ids_GT.tolist()]
    for record, (title, is_own) in enumerate(zip(title_B.tolist(), is_own_B.tolist(), strict=True)):
        assert is_own == (titles[title] == titles[record])
        assert 0 <= title < num_records


def test_the_share_of_wrong_titles_is_as_asked_and_differs_by_epoch() -> None:
    shares = []
    for epoch in range(4):
        peers = peers_of(400, epoch)
        shares.append(shown_titles(peers, 0.3)[0] != peers.row_B)
    assert torch.stack(shares).float().mean() == pytest.approx(0.3, abs=0.04)
    assert not torch.equal(shares[0], shares[1])


def test_the_loss_is_the_cross_entropy_of_the_shown_pairs() -> None:
    model, records = make_model().eval(), make_records(12)
    inputs = to_tensors(make_batch(records, 0, make_masking(make_config())), CPU)
    objective = Itm(ItmConfig(weight=1.0), model.config)
    # By hand: the first half is shown the title of the record after the next.
    lot_B = torch.tensor([(1 << 20) + 0] * 6 + [(1 << 20) - 1] * 6)
    peers = replace(peers_of(12), lot_B=lot_B)
    terms = objective(Pass(model, inputs, model.target_states(*inputs[:6]), peers))
    assert terms.count_B.tolist() == [1.0] * 12
    for record in range(12):
        other = record if record >= 6 else (record + 2) % 12
        shown = records.take(np.array([record]))._replace(
            token_ids_RT=records.token_ids_RT[[other]], num_tokens_R=records.num_tokens_R[[other]]
        )
        alone = to_tensors(make_batch(shown, 0, make_masking(make_config())), CPU)
        nothing = torch.zeros_like(alone.cell_hidden_BN), torch.zeros_like(alone.token_hidden_BT)
        states = model.encode(alone.pixels_B3HW, alone.token_ids_BT, alone.token_present_BT, *nothing)
        words = int(shown.num_tokens_R[0]) > 2
        pooled = states.cells_BND.mean(1) / (2 if words else 1)
        if words:
            pooled = pooled + states.tokens_BTD[0].mean(0) / 2
        probability = torch.sigmoid(objective.head(pooled))[0, 0]
        same = bool((records.token_ids_RT[other] == records.token_ids_RT[record]).all())
        expected = -torch.log(probability if same else 1 - probability)
        torch.testing.assert_close(terms.sum_B[record], expected, rtol=1e-4, atol=1e-5)
