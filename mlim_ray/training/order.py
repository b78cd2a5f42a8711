"""The order of a run: which records the global batch at step i holds, from i alone (contract C2).

An epoch is a seeded permutation of the row groups. Each run of `num_lanes * window_groups` groups is a block; its
groups are dealt to the lanes, rows are mixed within a lane, and the lanes are interleaved evenly. Batches are cut from
the blocks in turn, so every record is seen once an epoch, the last batch being shorter. Where the batch size divides a
block (2,048 records by default), its bytes are read once an epoch, else up to twice. A worker takes contiguous lanes,
so the batches of all workers, joined by rank, are the same for any number of them (contract C3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.counter import draw
from mlim_ray.training.permutation import Permutation

_PERMUTE, _MIX = 11, 12

Int64s = NDArray[np.int64]


class Rows(NamedTuple):
    """Places of records in a split: row `row` of row group `group`, taken by `lane`."""

    group: Int64s
    row: Int64s
    lane: Int64s

    def take(self, index: NDArray[np.bool_] | Int64s | slice) -> "Rows":
        """A selection of the rows."""
        return Rows(self.group[index], self.row[index], self.lane[index])


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Several runs of rows as one; there may be none."""
    empty = np.zeros(0, np.int64)
    return (
        Rows(*(np.concatenate([empty, *column]) for column in zip(*parts, strict=True)))
        if parts
        else Rows(empty, empty, empty)
    )


@dataclass(frozen=True)
class StreamOrder:
    """Every batch of a run.

    Row groups have `group_records` rows each, but for the `short_groups`: (group, rows) of the last group that each
    generation of a set added. Not given, the last group of all is the only one that may be short.
    """

    num_records: int
    group_records: int
    batch_size: int
    num_lanes: int
    window_groups: int
    seed: int
    short_groups: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.num_records < 1:
            raise ValueError("the training split has no records; prepare a source with records in the train split")

    @property
    def epoch_steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_records // self.batch_size)

    @property
    def chunk_steps(self) -> int:
        """Steps that one task prepares: a block's worth, so that a block's row groups are read once."""
        return max(1, self._block_records // self.batch_size)

    @property
    def _block_records(self) -> int:
        return self.num_lanes * self.window_groups * self.group_records

    @cached_property
    def _num_full_groups(self) -> int:
        return (self.num_records - sum(rows for _, rows in self.short_groups)) // self.group_records

    @cached_property
    def _short_ids(self) -> Int64s:
        """The short row groups, in order."""
        if self.short_groups:
            return np.array([group for group, _ in self.short_groups], np.int64)
        return np.arange(self._num_full_groups, -(-self.num_records // self.group_records))

    @cached_property
    def _short_rows(self) -> Int64s:
        if self.short_groups:
            return np.array([rows for _, rows in self.short_groups], np.int64)
        return np.full(len(self._short_ids), self.num_records % self.group_records)

    @cached_property
    def _num_full_blocks(self) -> int:
        return self._num_full_groups // (self.num_lanes * self.window_groups)

    def places(self, rows: "Rows") -> Int64s:
        """Where the rows lie in the split as a whole, as if all its row groups were laid end to end."""
        missing = np.concatenate([[0], np.cumsum(self.group_records - self._short_rows)])
        return rows.group * self.group_records + rows.row - missing[np.searchsorted(self._short_ids, rows.group)]

    def samples_at(self, step: int) -> int:
        """Records seen before `step`."""
        epochs, within = divmod(step, self.epoch_steps)
        return epochs * self.num_records + min(within * self.batch_size, self.num_records)

    def steps_for(self, num_samples: int) -> int:
        """The fewest steps after which at least `num_samples` records were seen."""
        epochs, rest = divmod(num_samples, self.num_records)
        return epochs * self.epoch_steps + -(-rest // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return step // self.epoch_steps

    def lanes_of(self, rank: int, num_workers: int) -> range:
        """The contiguous lanes of a worker; uneven where the workers do not divide the lanes."""
        if not 1 <= num_workers <= self.num_lanes:
            raise ValueError(
                f"{num_workers} workers for {self.num_lanes} lanes; expected at most one worker a lane: "
                "use fewer workers or raise --feed.num-lanes"
            )
        return range(rank * self.num_lanes // num_workers, (rank + 1) * self.num_lanes // num_workers)

    def rows_at(self, step: int, lanes: range | None = None) -> Rows:
        """The rows of the global batch at `step`, in lane order; with `lanes`, only theirs."""
        epoch, step_in_epoch = divmod(step, self.epoch_steps)
        start = step_in_epoch * self.batch_size
        stop = min(start + self.batch_size, self.num_records)
        parts = []
        # What does not fill a block, and all short groups, make the last one, however large.
        last_block = min(self._num_full_blocks, (stop - 1) // self._block_records)
        for block in range(min(self._num_full_blocks, start // self._block_records), last_block + 1):
            first = block * self._block_records
            parts.append(_block_rows(self, epoch, block).take(slice(max(0, start - first), stop - first)))
        rows = join_rows(parts)
        rows = rows.take(rows.lane.argsort(kind="stable"))
        if lanes is None:
            return rows
        return rows.take((rows.lane >= lanes.start) & (rows.lane < lanes.stop))


@lru_cache(maxsize=8)
def _block_rows(order: StreamOrder, epoch: int, block: int) -> Rows:
    """All rows of a block, in the order in which batches are cut from it."""
    block_groups = order.num_lanes * order.window_groups
    positions = np.arange(block * block_groups, min((block + 1) * block_groups, order._num_full_groups))
    shuffled_groups = Permutation(max(1, order._num_full_groups), order.seed, epoch, _PERMUTE)(positions)
    # Full groups are numbered past the short ones between them.
    short_ids = order._short_ids
    groups = shuffled_groups + np.searchsorted(short_ids - np.arange(len(short_ids)), shuffled_groups, side="right")
    sizes = np.full(len(groups), order.group_records)
    if block == order._num_full_blocks:
        # The groups with fewer rows stay last: all blocks before then have the same number of rows.
        groups, sizes = np.concatenate([groups, short_ids]), np.concatenate([sizes, order._short_rows])

    group = np.repeat(groups, sizes)
    row = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    lot = draw(order.seed, epoch, _MIX, group, row)
    if len(groups) < order.num_lanes:
        # Too few groups to go round: the rows are dealt one by one, so that no worker stays without.
        shuffled = lot.argsort(kind="stable")
        return Rows(group[shuffled], row[shuffled], np.arange(len(group)) % order.num_lanes)
    lane = np.repeat(np.arange(len(groups)) % order.num_lanes, sizes)
    mixed = np.lexsort((lot, lane))
    lane_sizes = np.bincount(lane, minlength=order.num_lanes)
    place_in_lane = np.arange(len(lane)) - np.repeat(np.cumsum(lane_sizes) - lane_sizes, lane_sizes)
    evenly = (place_in_lane + 0.5) / np.repeat(lane_sizes, lane_sizes)
    interleaved = mixed[np.lexsort((lane[mixed], evenly))]
    return Rows(group[interleaved], row[interleaved], lane[interleaved])
