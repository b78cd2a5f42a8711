"""From a step's number to its masked batch, read from shards or from memory (contract C2).

Both ways use the same order and the same masks, so a test can prove that keys, pixels and masks are equal.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import FeedConfig, TrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, Records, blank_out, decode_into, empty_records
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.masking.masks import Masks, draw_masks
from mlim_ray.training.batch import Batch, Masking, make_batch, masked
from mlim_ray.training.order import Rows, StreamOrder, join_rows

TRAIN_SPLIT = "train"
# A batch's masks alone take longer than copying its pictures; those of a few thousand records cost a quarter each.
_RECORDS_MASKED_TOGETHER = 2_048

OnLeftOut = Callable[[int, NDArray[np.int64]], None]
"""Told of a step and the row group of each record that its batch lacks, where damaged ones are left out."""


def ignore(step: int, groups: NDArray[np.int64]) -> None:
    """Nobody wants to know what is left out."""


def stream_order(prepared: PreparedSet, train: TrainConfig, feed: FeedConfig) -> StreamOrder:
    """The order in which a run sees the training split of a prepared set."""
    return StreamOrder(
        num_records=prepared.num_records(TRAIN_SPLIT),
        group_records=prepared.manifest.row_group_records,
        batch_size=train.batch_size,
        num_lanes=feed.num_lanes,
        window_groups=feed.window_groups,
        seed=train.seed,
        short_groups=prepared.short_groups(TRAIN_SPLIT),
    )


@dataclass(frozen=True)
class ShardReader:
    """Batches of one worker, read from the prepared set's shards; small enough to travel with a task.

    With `skips_damaged` the records of damaged row groups are left out of their batches; else they are an error.
    """

    prepared: PreparedSet
    order: StreamOrder
    masking: Masking
    lanes: range
    skips_damaged: bool = False

    def chunk_of(self, step: int) -> int:
        """The chunk that a step lies in; chunks lie on a fixed grid, so a resumed run only cuts its first one."""
        epoch, step_in_epoch = divmod(step, self.order.epoch_steps)
        return epoch * self._chunks_per_epoch + step_in_epoch // self.order.chunk_steps

    @property
    def chunk_records(self) -> int:
        """About how many records of a chunk are this worker's."""
        return max(1, self.order.chunk_steps * self.order.batch_size * len(self.lanes) // self.order.num_lanes)

    def read_chunks(self, chunks: range, start_step: int, stop_step: int) -> tuple[Batch, NDArray[np.int64]]:
        """Rows of the chunks' steps within [start_step, stop_step), in step order, and the step of each row.

        All rows that the order gives: those that are left out have no tokens, and `present` tells them. Pictures have
        one size in all these steps (`Masking.runs`).

        Raises:
            DamagedShardError: a row group is not what was prepared, and none are skipped.
            StorageError: a shard cannot be read for another reason.
        """
        steps = range(max(self._first_step(chunks.start), start_step), min(self._first_step(chunks.stop), stop_step))
        assert len(self.masking.runs(start_step, stop_step)) <= 1, "arrays of one size"
        rows, step_of_row = _rows_of(self.order, self.lanes, steps)
        epoch_R = step_of_row // self.order.epoch_steps
        return make_batch(self._read(rows), epoch_R, self.masking.at(start_step)), step_of_row

    def _first_step(self, chunk: int) -> int:
        epoch, chunk_in_epoch = divmod(chunk, self._chunks_per_epoch)
        return epoch * self.order.epoch_steps + chunk_in_epoch * self.order.chunk_steps

    @property
    def _chunks_per_epoch(self) -> int:
        return -(-self.order.epoch_steps // self.order.chunk_steps)

    def _read(self, rows: Rows) -> Records:
        """The records at `rows`; each row group is read once and only the wanted rows are decoded."""
        records = empty_records(len(rows.group), self.prepared.manifest)
        by_group = np.lexsort((rows.row, rows.group))
        groups, starts = np.unique(rows.group[by_group], return_index=True)
        for group, places in zip(groups, np.split(by_group, starts[1:]), strict=False):
            _decode_group(records, places, self.prepared, int(group), rows.row[places], self.skips_damaged)
        return records


def read_groups(prepared: PreparedSet, groups: range, *, skips_damaged: bool = False) -> Records:
    """Consecutive row groups of the training split; all of them are the resident set.

    Raises as `ShardReader.read_chunks` does; with `skips_damaged` the records of a damaged row group have no tokens.
    """
    short = dict(prepared.short_groups(TRAIN_SPLIT))
    sizes = [short.get(group, prepared.manifest.row_group_records) for group in groups]
    records = empty_records(sum(sizes), prepared.manifest)
    first = 0
    for group, size in zip(groups, sizes, strict=True):
        _decode_group(records, np.arange(first, first + size), prepared, group, None, skips_damaged)
        first += size
    return records


def present(batch: Batch, step: int, groups: NDArray[np.int64], on_left_out: OnLeftOut) -> Batch:
    """A step's batch without the records that could not be read; `groups` are the row groups of its records."""
    is_present = batch.num_tokens_B > 0
    if is_present.all():
        return batch
    on_left_out(step, groups[~is_present])
    return batch.take(np.flatnonzero(is_present))


def _decode_group(
    out: Records,
    places: NDArray[np.int64],
    prepared: PreparedSet,
    group: int,
    rows: NDArray[np.int64] | None,
    skips_damaged: bool,
) -> None:
    """Rows of a row group (all if none are named) to those places of `out`."""
    try:
        table = prepared.read_group(TRAIN_SPLIT, group, COLUMNS)
        try:
            decode_into(out, places, table if rows is None else table.take(rows), prepared.manifest)
        except (ValueError, OSError, SyntaxError, IndexError) as error:
            # The libraries' own words hold addresses in memory, which differ from run to run.
            detail = f"a record of it cannot be decoded ({type(error).__name__})"
            raise prepared.row_group(TRAIN_SPLIT, group).damaged(detail) from error
    except DamagedShardError:
        if not skips_damaged:
            raise
        blank_out(out, places)


def resident_batches(
    records: Records,
    order: StreamOrder,
    masking: Masking,
    lanes: range,
    start_step: int,
    stop_step: int,
    on_left_out: OnLeftOut = ignore,
) -> Iterator[Batch]:
    """The batches of steps [start_step, stop_step) of one worker, from the training split in memory."""
    steps_together = max(1, _RECORDS_MASKED_TOGETHER // order.batch_size)
    for steps in _cut(masking.runs(start_step, stop_step), steps_together):
        now = masking.at(steps.start)
        rows, step_of_row = _rows_of(order, lanes, steps)
        place_R = order.places(rows)
        epoch_R = step_of_row // order.epoch_steps
        masks = draw_masks(
            now.policy,
            seed=now.seed,
            epoch_B=epoch_R,
            key_hash_B=records.key_hash_R[place_R],
            num_cells=now.num_cells,
            word_of_token_BT=records.word_of_token_RT[place_R],
        )
        edges = np.searchsorted(step_of_row, np.arange(steps.start, steps.stop + 1))
        for step, (start, stop) in zip(steps, pairwise(edges), strict=True):
            part = slice(start, stop)
            shown = records.take(place_R[part]).shrunk(now.image_size)
            batch = masked(shown, Masks._make(array[part] for array in masks), epoch_R[part])
            yield present(batch, step, rows.group[part], on_left_out)


def _cut(runs: Iterable[range], most_steps: int) -> Iterator[range]:
    """Runs of at most so many steps."""
    for run in runs:
        for first in run[::most_steps]:
            yield range(first, min(first + most_steps, run.stop))


def _rows_of(order: StreamOrder, lanes: range, steps: range) -> tuple[Rows, NDArray[np.int64]]:
    """The rows of a worker at consecutive steps, and the step of each."""
    rows_of_steps = [order.rows_at(step, lanes) for step in steps]
    step_of_row = np.repeat(np.asarray(steps, np.int64), [len(rows.group) for rows in rows_of_steps])
    return join_rows(rows_of_steps), step_of_row
