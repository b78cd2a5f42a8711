"""Text-attentive masking: as many cells as were drawn, and those that go with the title."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mlim_ray.config import MamConfig, PretrainConfig
from mlim_ray.objectives import BatchTensors, Losses
from mlim_ray.objectives.text_attentive import TextAttentive, as_drawn, cell_choice
from mlim_ray.training.batch import make_batch
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.tensors import to_tensors
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records, timeless

CPU = torch.device("cpu")
NUM_RECORDS = 24


def attentive(chance_weight: float = 1.0, image_ratio: float = 0.5, **train: object) -> PretrainConfig:
    masking = {"kind": "text_attentive", "chance_weight": chance_weight, "image_ratio": image_ratio}
    return make_config(masking=masking, train=train)


def inputs_of(config: PretrainConfig, rows: slice = slice(None)) -> BatchTensors:
    return to_tensors(make_batch(make_records(NUM_RECORDS), 0, make_masking(config)).take(rows), CPU)


def likeness_by_hand(inputs: BatchTensors) -> np.ndarray:
    """Record by record, on its own tokens alone."""
    model, found = make_model(), []
    for record in range(len(inputs.mode_B)):
        present = inputs.token_present_BT[record]
        cells, tokens = model.encode(
            inputs.pixels_B3HW[record][None],
            inputs.token_ids_BT[record][present][None],
            present[present][None],
            torch.zeros_like(inputs.cell_hidden_BN[:1]),
            torch.zeros_like(present[present])[None],
        ).__dict__.values()
        mean = tokens[0].mean(0).detach().numpy()
        states = cells[0].detach().numpy()
        found.append(states @ mean / np.linalg.norm(states, axis=1) / np.linalg.norm(mean))
    return np.array(found)


@given(st.floats(0.0, 1.0), st.sampled_from([0.0, 1.0, 30.0]))
def test_as_many_cells_as_were_drawn_and_no_word_is_another(ratio: float, chance_weight: float) -> None:
    drawn = inputs_of(attentive(chance_weight, ratio))
    chosen = TextAttentive(chance_weight)(make_model(), drawn)
    torch.testing.assert_close(chosen.cell_hidden_BN.sum(1), drawn.cell_hidden_BN.sum(1))
    assert torch.equal(chosen.token_hidden_BT, drawn.token_hidden_BT)
    assert torch.equal(chosen.layout.visible_cell_V, (~chosen.cell_hidden_BN).flatten().nonzero()[:, 0])


@pytest.mark.parametrize("chance_weight", [0.0, 0.7])
def test_the_cells_that_are_most_like_the_title_are_hidden(chance_weight: float) -> None:
    drawn = inputs_of(attentive(chance_weight))
    chosen = TextAttentive(chance_weight)(make_model(), drawn).cell_hidden_BN.numpy()
    by_chance = drawn.cell_hidden_BN.numpy()
    for likeness, hidden, lots in zip(likeness_by_hand(drawn), chosen, by_chance, strict=True):
        wish = likeness / likeness.std() + chance_weight * lots
        assert set(np.flatnonzero(hidden)) == set(np.argsort(-wish)[: lots.sum()])
    assert (chosen != by_chance).any()


def test_with_a_large_weight_chance_decides() -> None:
    drawn = inputs_of(attentive(100.0))
    assert torch.equal(TextAttentive(100.0)(make_model(), drawn).cell_hidden_BN, drawn.cell_hidden_BN)


def test_a_choice_depends_on_its_own_record_alone() -> None:
    model, choose = make_model(), TextAttentive(1.0)
    together = choose(model, inputs_of(attentive())).cell_hidden_BN
    for row in range(0, NUM_RECORDS, 5):
        alone = choose(model, inputs_of(attentive(), slice(row, row + 1))).cell_hidden_BN
        assert torch.equal(alone[0], together[row])


def test_other_policies_stay_as_they_were_drawn() -> None:
    assert cell_choice(MamConfig()) is as_drawn


def test_the_losses_are_those_of_the_chosen_cells() -> None:
    config = attentive(0.0)
    drawn, model = inputs_of(config), make_model()
    chosen = TextAttentive(0.0)(model, drawn)
    found = Losses(model, config)(drawn)
    plain = Losses(model, make_config())(chosen)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.sum_B, other.sum_B) and torch.equal(one.count_B, other.count_B)
    assert all(gradient_of(terms.sum_B) for terms in found)


def gradient_of(loss_B: Tensor) -> bool:
    return loss_B.grad_fn is not None


def test_a_run_goes_on_as_if_nothing_had_happened() -> None:
    config = attentive(num_steps=12, log_every_steps=1)
    records, order = make_records(40), make_order(config, 40)

    def lines_of(trainer: Trainer, stop_step: int) -> list[dict[str, object]]:
        lines: list[dict[str, object]] = []
        batches = resident_batches(records, order, make_masking(config), range(order.num_lanes), trainer.step, 12)
        trainer.run(batches, stop_step, lines.append)
        return timeless(lines)

    whole = lines_of(Trainer(make_model(), config, order), 12)
    first = Trainer(make_model(), config, order)
    lines = lines_of(first, 5)
    second = Trainer(make_model(1), config, order)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state(first.state())
    assert lines + lines_of(second, 12) == whole
