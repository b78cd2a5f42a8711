"""Batches read from shards: the same for any number of workers, cut and resumed anywhere (contracts C2, C3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlim_ray.config import FeedConfig, MamConfig, TrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.batch import Batch, Masking
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.stream import ShardReader, read_groups, resident_batches, stream_order
from tests.prepared_sets import SourceRecord, source_records, write_prepared

NUM_RECORDS, BATCH_SIZE, NUM_LABELS = 1_000, 50, 4
MASKING = Masking(MamConfig(), seed=3, num_cells=16)


@pytest.fixture(scope="module")
def source() -> dict[int, SourceRecord]:
    return source_records(NUM_RECORDS, NUM_LABELS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, source: dict[int, SourceRecord]) -> PreparedSet:
    return write_prepared(tmp_path_factory.mktemp("train"), source)


@pytest.fixture(scope="module")
def order(prepared: PreparedSet) -> StreamOrder:
    """20 steps an epoch in chunks of 7: neither a block nor an epoch is a whole number of them."""
    train, feed = TrainConfig(batch_size=BATCH_SIZE, seed=3), FeedConfig(num_lanes=6, window_groups=1)
    return stream_order(prepared, train, feed)


@pytest.fixture(scope="module")
def global_batches(prepared: PreparedSet, order: StreamOrder) -> list[Batch]:
    """Two epochs for one worker, from memory."""
    records = read_groups(prepared, range(len(prepared.row_groups("train"))))
    return list(resident_batches(records, order, MASKING, range(order.num_lanes), 0, 2 * order.epoch_steps))


def read_steps(reader: ShardReader, start: int, stop: int) -> list[Batch]:
    """The worker's batches of steps [start, stop), one chunk, then two together, then three ..."""
    batches: list[Batch] = []
    first, last = reader.chunk_of(start), reader.chunk_of(stop - 1) + 1
    for num_chunks in range(1, last - first + 1):
        chunks = range(first, min(first + num_chunks, last))
        rows, step_of_row = reader.read_chunks(chunks, start, stop)
        in_chunks = [step for step in range(start, stop) if reader.chunk_of(step) in chunks]
        np.testing.assert_array_equal(step_of_row, np.sort(step_of_row))
        assert set(step_of_row) <= set(in_chunks)
        batches += [rows.take(np.flatnonzero(step_of_row == step)) for step in in_chunks]
        first = chunks.stop
    return batches


def check_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        for name, x, y in zip(Batch._fields, a, b, strict=True):
            assert x.dtype == y.dtype, name
            np.testing.assert_array_equal(x, y, err_msg=name)


def join(parts: tuple[Batch, ...]) -> Batch:
    return Batch(*map(np.concatenate, zip(*parts, strict=True)))


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_workers_joined_by_rank_give_the_global_batch(
    prepared: PreparedSet, order: StreamOrder, global_batches: list[Batch], num_workers: int
) -> None:
    lanes = [order.lanes_of(rank, num_workers) for rank in range(num_workers)]
    by_rank = [read_steps(ShardReader(prepared, order, MASKING, part), 0, 2 * order.epoch_steps) for part in lanes]
    check_equal([join(parts) for parts in zip(*by_rank, strict=True)], global_batches)
    for batches, part in zip(by_rank, lanes, strict=True):
        num_rows = sum(len(batch.key_hash_B) for batch in batches)
        assert num_rows == pytest.approx(2 * NUM_RECORDS * len(part) / order.num_lanes, rel=0.25)


@given(st.data())
@example(None)
def test_a_stream_may_be_cut_anywhere(
    prepared: PreparedSet, order: StreamOrder, global_batches: list[Batch], data: st.DataObject | None
) -> None:
    reader = ShardReader(prepared, order, MASKING, range(order.num_lanes))
    assert order.chunk_steps == 7 and order.epoch_steps == 20
    # Within a chunk; over the shorter one at an epoch's end when nothing is drawn.
    start = data.draw(st.integers(0, len(global_batches) - 1)) if data is not None else 17
    stop = data.draw(st.integers(start + 1, len(global_batches))) if data is not None else 23
    check_equal(read_steps(reader, start, stop), global_batches[start:stop])


def test_resident_batches_may_start_anywhere(
    prepared: PreparedSet, order: StreamOrder, global_batches: list[Batch]
) -> None:
    records = read_groups(prepared, range(len(prepared.row_groups("train"))))
    lanes = range(order.num_lanes)
    check_equal(list(resident_batches(records, order, MASKING, lanes, 19, 24)), global_batches[19:24])


def test_every_record_comes_once_an_epoch(
    order: StreamOrder, global_batches: list[Batch], source: dict[int, SourceRecord]
) -> None:
    for epoch in range(2):
        batches = global_batches[epoch * order.epoch_steps : (epoch + 1) * order.epoch_steps]
        keys = np.concatenate([batch.key_hash_B for batch in batches])
        np.testing.assert_array_equal(np.sort(keys), np.sort(np.array(list(source), np.uint64)))
        assert all((batch.epoch_B == epoch).all() for batch in batches)


def test_a_record_is_masked_anew_each_epoch(order: StreamOrder, global_batches: list[Batch]) -> None:
    epochs = [join(tuple(global_batches[: order.epoch_steps])), join(tuple(global_batches[order.epoch_steps :]))]
    one, two = (epoch.take(epoch.key_hash_B.argsort()) for epoch in epochs)
    np.testing.assert_array_equal(one.pixels_BHW3, two.pixels_BHW3)
    same_cells = (one.cell_hidden_BN == two.cell_hidden_BN).all(1)
    same_tokens = (one.token_hidden_BT == two.token_hidden_BT).all(1)
    # The few that agree hide nothing or all of a modality in both epochs, or are drawn so by chance.
    assert same_cells.mean() < 0.1 and same_tokens.mean() < 0.6
    assert (same_cells & same_tokens).mean() < 0.05


def test_pixels_and_tokens_belong_to_their_key(
    prepared: PreparedSet, order: StreamOrder, source: dict[int, SourceRecord]
) -> None:
    tokenizer = prepared.tokenizer()
    reader = ShardReader(prepared, order, MASKING, order.lanes_of(1, 2))
    for batch in read_steps(reader, 3, 12):
        records = [source[int(key)] for key in batch.key_hash_B]
        np.testing.assert_array_equal(batch.pixels_BHW3, np.stack([record.picture for record in records]))
        pieces = tokenizer.encode([record.text for record in records], batch.token_ids_BT.shape[1])
        for ids, num_tokens, expected in zip(batch.token_ids_BT, batch.num_tokens_B, pieces, strict=True):
            assert ids[:num_tokens].tolist() == expected.token_ids and not ids[num_tokens:].any()


def test_batches_of_a_label_sorted_source_mix_the_labels(
    global_batches: list[Batch], source: dict[int, SourceRecord]
) -> None:
    labels = [[source[int(key)].label for key in batch.key_hash_B] for batch in global_batches]
    counts = np.stack([np.bincount(batch, minlength=NUM_LABELS) for batch in labels])
    expected = BATCH_SIZE / NUM_LABELS
    # Records drawn one by one give the degrees of freedom on average; in the source's order it is 50 times that.
    assert ((counts - expected) ** 2 / expected).sum(1).mean() < 1.5 * (NUM_LABELS - 1)
    assert counts.min() > 0


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_each_row_group_is_read_once_an_epoch(
    prepared: PreparedSet, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A block of row groups is a whole number of batches here, as by default; else groups at its edges are read twice.
    order = stream_order(prepared, TrainConfig(batch_size=32, seed=3), FeedConfig(num_lanes=4, window_groups=1))
    read: list[int] = []
    read_group = PreparedSet.read_group

    def noted(self: PreparedSet, split: str, group: int, columns: Sequence[str]) -> Any:
        read.append(group)
        return read_group(self, split, group, columns)

    monkeypatch.setattr(PreparedSet, "read_group", noted)
    for rank in range(num_workers):
        read_steps(ShardReader(prepared, order, MASKING, order.lanes_of(rank, num_workers)), 0, order.epoch_steps)
    num_groups = prepared.num_groups("train")
    assert set(read) == set(range(num_groups))
    assert len(read) == num_groups
