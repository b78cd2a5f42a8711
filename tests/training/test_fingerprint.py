"""Digests of what batches are made of: blind to order and to the cut into workers, and to nothing else."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.fingerprint import Fingerprint, batch_digests
from mlim_ray.training.metrics import KEYS, MASKS
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import digests, make_config, make_masking, make_model, make_order, make_records

NUM_RECORDS = 30
CONFIG = make_config()
RECORDS = make_records(NUM_RECORDS)
BATCH = make_batch(RECORDS, 0, make_masking(CONFIG))
CPU = torch.device("cpu")


def total(parts: list[tuple[int, Batch]]) -> dict[str, str]:
    fingerprint = Fingerprint(CPU)
    for step, batch in parts:
        fingerprint.add(step, batch)
    return fingerprint.read_and_reset()


@given(st.permutations(range(NUM_RECORDS)), st.lists(st.integers(0, NUM_RECORDS), max_size=4), st.integers(0, 10**9))
def test_order_and_cut_change_nothing(order: list[int], cuts: list[int], step: int) -> None:
    shuffled = BATCH.take(np.array(order))
    edges = [0, *sorted(cuts), NUM_RECORDS]
    parts = [(step, shuffled.take(slice(a, b))) for a, b in pairwise(edges)]
    assert total(parts) == total([(step, BATCH)])


@given(st.integers(0, NUM_RECORDS - 1), st.sampled_from(["cell_hidden_BN", "token_hidden_BT"]), st.data())
def test_a_single_bit_of_a_mask_changes_the_masks_alone(record: int, name: str, data: st.DataObject) -> None:
    hidden = getattr(BATCH, name).copy()
    unit = data.draw(st.integers(0, hidden.shape[1] - 1))
    hidden[record, unit] ^= True
    before, after = total([(3, BATCH)]), total([(3, BATCH._replace(**{name: hidden}))])
    assert after[KEYS] == before[KEYS] and after[MASKS] != before[MASKS]


@given(st.integers(0, NUM_RECORDS - 1), st.integers(0, 2**64 - 1))
def test_another_key_changes_both(record: int, key: int) -> None:
    keys = BATCH.key_hash_B.copy()
    keys[record] = key
    before, after = total([(0, BATCH)]), total([(0, BATCH._replace(key_hash_B=keys))])
    assert [before[name] != after[name] for name in (KEYS, MASKS)] == [key != BATCH.key_hash_B[record]] * 2


@given(st.lists(st.integers(0, NUM_RECORDS - 1), min_size=1, max_size=4), st.integers(0, 2))
def test_how_often_a_record_is_seen_counts(more: list[int], record: int) -> None:
    # Pairs would vanish from an exclusive or.
    seen = np.array([record, *more, *more])
    assert total([(0, BATCH.take(seen))]) != total([(0, BATCH.take(np.array([record])))])


def test_masks_moved_to_another_record_or_to_the_other_side_are_other_masks() -> None:
    two = BATCH.take(slice(0, 2))._replace(
        cell_hidden_BN=np.array([[True] + [False] * 9, [False] * 10]), token_hidden_BT=np.zeros((2, 10), np.bool_)
    )
    swapped = two._replace(cell_hidden_BN=two.cell_hidden_BN[::-1])
    other_side = two._replace(cell_hidden_BN=two.token_hidden_BT, token_hidden_BT=two.cell_hidden_BN)
    found = [total([(0, batch)]) for batch in (two, swapped, other_side)]
    assert len({line[MASKS] for line in found}) == 3 and len({line[KEYS] for line in found}) == 1


@pytest.mark.parametrize("width", [11, 64, 65, 200])
def test_padding_changes_nothing(width: int) -> None:
    hidden = np.zeros((NUM_RECORDS, width), np.bool_)
    hidden[:, : BATCH.token_hidden_BT.shape[1]] = BATCH.token_hidden_BT
    assert total([(0, BATCH._replace(token_hidden_BT=hidden))]) == total([(0, BATCH)])
    hidden[7, -1] = True
    assert total([(0, BATCH._replace(token_hidden_BT=hidden))])[MASKS] != total([(0, BATCH)])[MASKS]


def test_records_that_change_places_between_steps_are_told() -> None:
    first, second = BATCH.take(slice(0, 15)), BATCH.take(slice(15, 30))
    assert total([(0, first), (1, second)]) != total([(0, second), (1, first)])


def test_digests_of_lines_add_up_and_wrap_around() -> None:
    parts = [(step, BATCH) for step in range(40)]
    summed = np.zeros(2, np.uint64)
    for step, batch in parts:
        summed += batch_digests(step, batch)
    assert total(parts) == {KEYS: f"{summed[0]:016x}", MASKS: f"{summed[1]:016x}"}
    exact = [sum(int(batch_digests(step, batch)[side]) for step, batch in parts) for side in (0, 1)]
    assert min(exact) > 2**64 and [int(part) for part in summed] == [part % 2**64 for part in exact]


def test_a_read_starts_anew_and_nothing_at_all_is_zero() -> None:
    fingerprint = Fingerprint(CPU)
    fingerprint.add(0, BATCH)
    assert all(re.fullmatch(r"[0-9a-f]{16}", digest) for digest in fingerprint.read_and_reset().values())
    fingerprint.add(1, BATCH.take(slice(0, 0)))
    assert fingerprint.read_and_reset() == {KEYS: "0" * 16, MASKS: "0" * 16}


def test_the_state_goes_on_where_it_was_saved() -> None:
    whole, first = Fingerprint(CPU), Fingerprint(CPU)
    first.add(0, BATCH)
    state = first.state().clone()
    # Saving changes nothing, and what comes after it is not in it.
    first.add(1, BATCH)
    second = Fingerprint(CPU)
    second.load_state(state)
    second.add(1, BATCH)
    for step in (0, 1):
        whole.add(step, BATCH)
    assert first.read_and_reset() == second.read_and_reset() == whole.read_and_reset()


def test_a_logged_line_tells_of_all_steps_since_the_last_one() -> None:
    config = make_config(train={"num_steps": 5, "log_every_steps": 3})
    order, lines = make_order(config, NUM_RECORDS), []

    def batches() -> list[Batch]:
        lanes = range(order.num_lanes)
        return list(resident_batches(RECORDS, order, make_masking(config), lanes, 0, 5))

    Trainer(make_model(), config, order).run(iter(batches()), 5, lines.append)
    parts = list(enumerate(batches()))
    assert [digests(line) for line in lines] == [total(parts[:3]), total(parts[3:])]
