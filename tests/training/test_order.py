"""The order of a run (contracts C2, C3): each record once an epoch, the same batches for any worker count."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlim_ray.training.order import Rows, StreamOrder

WHOLE = st.builds(
    StreamOrder,
    num_records=st.integers(1, 500),
    group_records=st.integers(1, 24),
    batch_size=st.integers(1, 80),
    num_lanes=st.integers(1, 8),
    window_groups=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)


@st.composite
def grown_orders(draw: st.DrawFn) -> StreamOrder:
    """Of a set of several generations, each of which left its last row group short."""
    group_records = draw(st.integers(2, 12))
    sizes: list[int] = []
    for _ in range(draw(st.integers(1, 5))):
        sizes += [group_records] * draw(st.integers(0, 12)) + [draw(st.integers(1, group_records - 1))]
    short = tuple((group, size) for group, size in enumerate(sizes) if size < group_records)
    lanes, windows = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    return StreamOrder(sum(sizes), group_records, draw(st.integers(1, 40)), lanes, windows, 3, short)


ORDERS = WHOLE | grown_orders()
ONE_RECORD = StreamOrder(1, 64, 64, 16, 2, 0)
LAST_GROUP_ALONE_IN_ITS_BLOCK = StreamOrder(65, 4, 8, 4, 4, 0)
SPLIT_BY_LABEL = StreamOrder(20_000, 64, 64, 16, 2, 5)


def records_of(order: StreamOrder, rows: Rows) -> np.ndarray:
    return order.places(rows)


def epoch_batches(order: StreamOrder, epoch: int) -> list[np.ndarray]:
    first = epoch * order.epoch_steps
    return [records_of(order, order.rows_at(step)) for step in range(first, first + order.epoch_steps)]


@given(grown_orders())
def test_places_count_the_rows_of_the_row_groups_before(order: StreamOrder) -> None:
    short = dict(order.short_groups)
    sizes: list[int] = []
    while sum(sizes) < order.num_records:
        sizes.append(short.get(len(sizes), order.group_records))
    group = np.repeat(np.arange(len(sizes)), sizes)
    row = np.concatenate([np.arange(size) for size in sizes])
    np.testing.assert_array_equal(order.places(Rows(group, row, row)), np.arange(order.num_records))
    rows = order.rows_at(0)
    assert all(row < sizes[group] for group, row in zip(rows.group, rows.row, strict=True))


@settings(max_examples=100)
@given(ORDERS, st.integers(0, 3))
@example(ONE_RECORD, 0)
@example(LAST_GROUP_ALONE_IN_ITS_BLOCK, 1)
def test_every_record_comes_once_an_epoch(order: StreamOrder, epoch: int) -> None:
    batches = epoch_batches(order, epoch)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(order.num_records))
    assert {len(batch) for batch in batches[:-1]} <= {order.batch_size}
    assert 1 <= len(batches[-1]) <= order.batch_size


@given(ORDERS, st.data())
@example(ONE_RECORD, None)
@example(LAST_GROUP_ALONE_IN_ITS_BLOCK, None)
def test_any_number_of_workers_shares_the_same_batches(order: StreamOrder, data: st.DataObject | None) -> None:
    steps = range(order.epoch_steps) if data is None else [data.draw(st.integers(0, 3 * order.epoch_steps))]
    for num_workers in {1, 2, 3, 4, order.num_lanes} & set(range(order.num_lanes + 1)):
        lanes = [order.lanes_of(rank, num_workers) for rank in range(num_workers)]
        assert [lane for part in lanes for lane in part] == list(range(order.num_lanes))
        assert max(map(len, lanes)) - min(map(len, lanes)) <= 1
        for step in steps:
            parts = [order.rows_at(step, part) for part in lanes]
            joined = Rows(*map(np.concatenate, zip(*parts, strict=True)))
            np.testing.assert_array_equal(joined, order.rows_at(step))


@pytest.mark.parametrize("num_workers", [0, 17])
def test_more_workers_than_lanes_are_refused(num_workers: int) -> None:
    with pytest.raises(ValueError, match=r"16 lanes.*--feed.num-lanes"):
        SPLIT_BY_LABEL.lanes_of(0, num_workers)


def test_a_split_without_records_is_refused() -> None:
    with pytest.raises(ValueError, match="no records"):
        StreamOrder(0, 64, 64, 16, 2, 0)


@settings(max_examples=40)
@given(ORDERS)
@example(ONE_RECORD)
def test_samples_and_steps_agree_with_the_batches(order: StreamOrder) -> None:
    sizes = [len(batch) for epoch in range(2) for batch in epoch_batches(order, epoch)]
    seen = np.concatenate([[0], np.cumsum(sizes)])
    assert [order.samples_at(step) for step in range(len(seen))] == seen.tolist()
    for num_samples in {
        0,
        1,
        order.batch_size,
        order.num_records,
        order.num_records + 1,
        2 * order.num_records,
    }:
        if num_samples <= seen[-1]:
            assert order.steps_for(num_samples) == np.searchsorted(seen, num_samples)
    assert [order.epoch_of(step) for step in (0, order.epoch_steps - 1, order.epoch_steps)] == [0, 0, 1]


@pytest.mark.parametrize("change", [{"seed": 6}, {"epoch": 1}])
def test_another_epoch_or_seed_is_another_order(change: dict[str, int]) -> None:
    order = StreamOrder(2_000, 64, 64, 16, 2, 5)
    changed = StreamOrder(2_000, 64, 64, 16, 2, change.get("seed", 5))
    one = np.concatenate(epoch_batches(order, 0))
    two = np.concatenate(epoch_batches(changed, change.get("epoch", 0)))
    assert np.mean(one == two) < 0.02
    assert abs(np.corrcoef(one.argsort(), two.argsort())[0, 1]) < 0.1


@pytest.mark.parametrize("num_labels", [2, 10])
def test_batches_of_a_label_sorted_split_mix_the_labels(num_labels: int) -> None:
    order = SPLIT_BY_LABEL
    labels = np.arange(order.num_records) * num_labels // order.num_records
    batches = [batch for epoch in range(8) for batch in epoch_batches(order, epoch)[:-1]]
    expected = order.batch_size / num_labels
    chi_square = [
        ((np.bincount(labels[batch], minlength=num_labels) - expected) ** 2 / expected).sum() for batch in batches
    ]
    # Records drawn one by one give the degrees of freedom on average; two records of each of a block's 32 row
    # groups, where each row group has one label, about twice that; records in stored order 64 times that.
    assert np.mean(chi_square) < 3 * (num_labels - 1)
    distinct = np.mean([len(np.unique(labels[batch])) for batch in batches])
    groups_of_a_block = order.num_lanes * order.window_groups
    assert distinct > num_labels * (1 - (1 - 1 / num_labels) ** groups_of_a_block) - 0.1


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
@pytest.mark.parametrize("num_records", [2_000, 4_096, 5_003])
def test_a_row_group_is_read_once_an_epoch(num_records: int, num_workers: int) -> None:
    order = StreamOrder(num_records, 16, 32, 16, 2, 3)
    block_groups = order.num_lanes * order.window_groups
    num_groups = -(-num_records // order.group_records)
    readers = defaultdict(set)
    for rank in range(num_workers):
        lanes = order.lanes_of(rank, num_workers)
        for step in range(order.epoch_steps):
            for group in np.unique(order.rows_at(step, lanes).group):
                readers[int(group)].add((rank, step // order.chunk_steps))
    assert set(readers) == set(range(num_groups))
    num_shared = sum(len(by) > 1 for by in readers.values())
    # Only a last block with fewer groups than lanes is dealt out by the record.
    last_block = num_groups % block_groups
    assert num_shared <= (last_block if last_block < order.num_lanes else 0)


@pytest.mark.parametrize("epochs", [(0, 1), (1, 2), (0, 3)])
def test_neighbours_of_one_epoch_are_far_apart_in_another(epochs: tuple[int, int]) -> None:
    order = SPLIT_BY_LABEL
    one, other = (epoch_batches(order, epoch) for epoch in epochs)
    first = np.concatenate(one)
    left, right = first[:-1], first[1:]
    place = np.concatenate(other).argsort()
    # Of a random order a third; neighbours share a row group 30 times as often as chance has it, and those stay in
    # one block of a tenth of the records.
    assert np.abs(place[left] - place[right]).mean() > 0.18 * order.num_records
    batch = np.repeat(np.arange(len(other)), [len(part) for part in other])[place]
    by_chance = (order.batch_size - 1) / (order.num_records - 1)
    # An order that does not change gives 300 times the chance.
    assert np.mean(batch[left] == batch[right]) < 6 * by_chance
