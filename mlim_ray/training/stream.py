"""From a step's number to its masked batch, read from shards or from memory (contract C2).

Both ways use the same order and the same masks, so a test can prove that keys, pixels and masks are equal.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mlim_ray.config import FeedConfig, TrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, Records, decode_records, join_records
from mlim_ray.training.batch import Batch, Masking, make_batch
from mlim_ray.training.order import Rows, StreamOrder, join_rows

TRAIN_SPLIT = "train"


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
    """Batches of one worker, read from the prepared set's shards; small enough to travel with a task."""

    prepared: PreparedSet
    order: StreamOrder
    masking: Masking
    lanes: range

    def chunk_of(self, step: int) -> int:
        """The chunk that a step lies in; chunks lie on a fixed grid, so a resumed run only cuts its first one."""
        epoch, step_in_epoch = divmod(step, self.order.epoch_steps)
        return epoch * self._chunks_per_epoch + step_in_epoch // self.order.chunk_steps

    def read_chunk(self, chunk: int, start_step: int, stop_step: int) -> tuple[Batch, np.ndarray]:
        """Rows of the chunk's steps within [start_step, stop_step), in step order, and the step of each row."""
        epoch, chunk_in_epoch = divmod(chunk, self._chunks_per_epoch)
        first = epoch * self.order.epoch_steps + chunk_in_epoch * self.order.chunk_steps
        last = min(first + self.order.chunk_steps, (epoch + 1) * self.order.epoch_steps)
        steps = range(max(first, start_step), min(last, stop_step))
        rows_of_steps = [self.order.rows_at(step, self.lanes) for step in steps]
        step_of_row = np.repeat(np.asarray(steps, np.int64), [len(rows.group) for rows in rows_of_steps])
        return make_batch(self._read(join_rows(rows_of_steps)), epoch, self.masking), step_of_row

    @property
    def _chunks_per_epoch(self) -> int:
        return -(-self.order.epoch_steps // self.order.chunk_steps)

    def _read(self, rows: Rows) -> Records:
        """The records at `rows`; each row group is read once and only the wanted rows are decoded."""
        by_group = np.lexsort((rows.row, rows.group))
        groups, starts = np.unique(rows.group[by_group], return_index=True)
        if len(groups) == 0:
            return self._decode(0, rows.row)
        parts = [
            self._decode(int(group), rows.row[places])
            for group, places in zip(groups, np.split(by_group, starts[1:]), strict=True)
        ]
        place_of_row = np.empty_like(by_group)
        place_of_row[by_group] = np.arange(len(by_group))
        return join_records(parts).take(place_of_row)

    def _decode(self, group: int, rows: np.ndarray) -> Records:
        return decode_records(self.prepared.read_group(TRAIN_SPLIT, group, COLUMNS).take(rows), self.prepared.manifest)


def read_groups(prepared: PreparedSet, groups: Iterable[int]) -> Records:
    """Whole row groups of the training split; all of them in order are the resident set."""
    return join_records(
        [decode_records(prepared.read_group(TRAIN_SPLIT, group, COLUMNS), prepared.manifest) for group in groups]
    )


def resident_batches(
    records: Records, order: StreamOrder, masking: Masking, lanes: range, start_step: int, stop_step: int
) -> Iterator[Batch]:
    """The batches of steps [start_step, stop_step) of one worker, from the training split in memory."""
    for step in range(start_step, stop_step):
        rows = order.rows_at(step, lanes)
        yield make_batch(records.take(order.places(rows)), order.epoch_of(step), masking)
