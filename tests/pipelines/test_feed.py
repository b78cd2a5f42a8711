"""The two feeds on a real Ray: streamed by Ray Data, or resident in the object store (contract C2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import ray

from mlim_ray.config import FeedConfig, MamConfig, TrainConfig
from mlim_ray.data import row_groups
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.storage import StorageError
from mlim_ray.pipelines import feed as feed_module
from mlim_ray.pipelines.feed import put_resident, resident_bytes, stream_batches
from mlim_ray.training import stream as stream_module
from mlim_ray.training.batch import Batch, Masking
from mlim_ray.training.resolution import Stage
from mlim_ray.training.stream import ShardReader, read_groups, resident_batches, stream_order
from tests.prepared_sets import MAX_TOKENS, SIZE, damage, source_records, write_prepared

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

MASKING = Masking(MamConfig(), seed=3, num_cells=16)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """35 row groups: more than one task of `put_resident`."""
    return write_prepared(tmp_path_factory.mktemp("many"), source_records(2_200))


def reader_of(prepared: PreparedSet, rank: int, num_workers: int, *, batch_size: int, num_lanes: int) -> ShardReader:
    train, feed = TrainConfig(batch_size=batch_size, seed=3), FeedConfig(num_lanes=num_lanes, window_groups=1)
    order = stream_order(prepared, train, feed)
    return ShardReader(prepared, order, MASKING, order.lanes_of(rank, num_workers))


def expected_batches(reader: ShardReader, start: int, stop: int) -> list[Batch]:
    """The same steps without Ray, each read by itself."""
    chunks = [reader.chunk_of(step) for step in range(start, stop)]
    batches = [
        reader.read_chunks(range(c, c + 1), s, s + 1)[0] for c, s in zip(chunks, range(start, stop), strict=True)
    ]
    return [batch.take(np.flatnonzero(batch.num_tokens_B > 0)) for batch in batches]


def check_equal(one: list[Batch] | list[Records], other: list[Batch] | list[Records]) -> None:
    for a, b in zip(one, other, strict=True):
        for name, x, y in zip(a._fields, a, b, strict=True):
            assert x.dtype == y.dtype, name
            np.testing.assert_array_equal(x, y, err_msg=name)


def forbid(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the worker's own process decoded or masked records")


@pytest.mark.parametrize("rank", [0, 1])
def test_ray_data_tasks_decode_and_mask_each_workers_steps(
    prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    reader = reader_of(prepared, rank, 2, batch_size=50, num_lanes=6)
    start, stop = 3, reader.order.epoch_steps + 10
    assert reader.chunk_of(stop) - reader.chunk_of(start) > 6
    tasks = feed_module._divide(reader, reader.chunk_of(start), reader.chunk_of(stop - 1) + 1)
    assert len(tasks) > 4 and {len(chunks) for chunks in tasks} >= {1, 2}
    row_groups.open_shard.cache_clear()
    with monkeypatch.context() as patch:
        # Tasks import their own copy: only what this process would do itself fails.
        patch.setattr(stream_module, "decode_into", forbid)
        patch.setattr(stream_module, "make_batch", forbid)
        # Three pipelines, one after the other, of tasks of one and of two chunks.
        patch.setattr(feed_module, "_TASKS_PER_PIPELINE", 2)
        streamed = list(stream_batches(reader, start, stop))
    assert row_groups.open_shard.cache_info().misses == 0
    check_equal(streamed, expected_batches(reader, start, stop))


def test_resident_records_are_the_split_decoded_once_in_tasks(
    prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stream_module, "decode_into", forbid)
        records = ray.get(put_resident(prepared))
    check_equal([records], [read_groups(prepared, range(35))])
    assert sum(array.nbytes for array in records) == resident_bytes(2_200, SIZE, MAX_TOKENS)
    # Shared memory, not a copy of it.
    assert not records.pixels_RHW3.flags.writeable
    reader = reader_of(prepared, 1, 3, batch_size=64, num_lanes=6)
    resident = resident_batches(records, reader.order, MASKING, reader.lanes, 30, 40)
    check_equal(list(resident), expected_batches(reader, 30, 40))


def test_tasks_shrink_pictures_and_begin_anew_where_their_size_changes(
    prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first change lies within a chunk and so does the start; the last steps have full pictures.
    stages = (Stage(9, 4, 4), Stage(30, 9, 6))
    reader = replace(reader_of(prepared, 0, 2, batch_size=50, num_lanes=6), masking=MASKING._replace(stages=stages))
    assert reader.order.chunk_steps == 7
    with monkeypatch.context() as patch:
        patch.setattr(stream_module, "decode_into", forbid)
        patch.setattr(stream_module, "make_batch", forbid)
        streamed = list(stream_batches(reader, 5, 40))
    assert [batch.pixels_BHW3.shape[1] for batch in streamed] == [4] * 4 + [6] * 21 + [8] * 10
    check_equal(streamed, expected_batches(reader, 5, 40))
    resident = resident_batches(read_groups(prepared, range(35)), reader.order, reader.masking, reader.lanes, 5, 40)
    check_equal(streamed, list(resident))


def test_a_worker_without_rows_in_a_step_gets_an_empty_batch(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = write_prepared(tmp_path_factory.mktemp("tiny"), source_records(5))
    by_rank = []
    for rank in range(4):
        reader = reader_of(tiny, rank, 4, batch_size=2, num_lanes=4)
        by_rank.append(list(stream_batches(reader, 0, 6)))
        check_equal(by_rank[rank], expected_batches(reader, 0, 6))
    sizes = np.array([[len(batch.key_hash_B) for batch in batches] for batches in by_rank])
    np.testing.assert_array_equal(sizes.sum(0), [2, 2, 1, 2, 2, 1])
    assert (sizes == 0).any(1).all()
    growing = replace(reader, masking=MASKING._replace(stages=(Stage(3, 4, 4),)))
    check_equal(list(stream_batches(growing, 0, 6)), expected_batches(growing, 0, 6))
    joined = [Batch(*map(np.concatenate, zip(*parts, strict=True))) for parts in zip(*by_rank, strict=True)]
    check_equal(joined, expected_batches(reader_of(tiny, 0, 1, batch_size=2, num_lanes=4), 0, 6))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """A set of 35 row groups, two of them damaged."""
    prepared = write_prepared(tmp_path_factory.mktemp("damaged"), source_records(2_200))
    damage(prepared, 4, 20)
    return prepared


def test_damaged_row_groups_are_left_out_and_told_by_step(damaged: PreparedSet) -> None:
    told: list[tuple[int, int]] = []
    for rank in range(2):
        reader = replace(reader_of(damaged, rank, 2, batch_size=50, num_lanes=6), skips_damaged=True)
        num_steps = reader.order.epoch_steps

        def on_left_out(step: int, groups: np.ndarray) -> None:
            told.extend((step, group) for group in groups.tolist())

        check_equal(list(stream_batches(reader, 0, num_steps, on_left_out)), expected_batches(reader, 0, num_steps))
    order = reader.order
    rows = [(step, group) for step in range(order.epoch_steps) for group in order.rows_at(step).group.tolist()]
    assert sorted(told) == sorted((step, group) for step, group in rows if group in (4, 20))
    records = ray.get(put_resident(damaged, skips_damaged=True))
    assert (records.num_tokens_R == 0).sum() == 2 * 64


def test_the_first_damaged_row_group_ends_the_stream_in_its_own_words(damaged: PreparedSet) -> None:
    reader = reader_of(damaged, 0, 1, batch_size=50, num_lanes=6)
    with pytest.raises(DamagedShardError, match=r"^\S+/shards/train-\S+.parquet, row group \d+: .*checksum") as caught:
        list(stream_batches(reader, 0, reader.order.epoch_steps))
    assert "\n" not in str(caught.value)
    with pytest.raises(DamagedShardError, match=r"^\S+/shards/train-\S+.parquet, row group 4: "):
        put_resident(damaged)


def test_a_shard_that_cannot_be_read_is_told_in_words_and_never_left_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    prepared = write_prepared(tmp_path_factory.mktemp("unreadable"), source_records(300))
    path = Path(prepared.row_group("train", 0).path)
    path.unlink()
    path.mkdir()
    reader = replace(reader_of(prepared, 0, 1, batch_size=50, num_lanes=6), skips_damaged=True)
    with pytest.raises(StorageError, match=f"^cannot read {path}: Is a directory$"):
        list(stream_batches(reader, 0, reader.order.epoch_steps))
