"""From the slices of a source, each cleaned on its own, to buckets: ranges of the hashes of their records' keys.

Few slices and buckets: a slice's file has a cell for each bucket, and a bucket reads its cell of every slice. Both
numbers grow with the source, so these reads grow with its square. Beyond ENOUGH_CELLS a stage lies between: a slice's
file has a cell for each *range* of buckets, and what a *group* of slices has of a range is written once more, with a
cell for each bucket. Every record is copied once; reads grow with the power 1.5, and a piece of the stage holds no more
than a slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.data import storage
from mlim_ray.data.staging import SCHEMA, bucket_of, read_cells, write_cells

ENOUGH_CELLS = 1 << 18
"""cells that are read one by one; some seconds on a disk, a minute of S3 (our choice)"""

Checksums = dict[str, int]
"""CRC-32 by file"""


@dataclass(frozen=True)
class Shuffle:
    """Where records lie on their way; the same numbers give the same files. Travels to tasks."""

    staging: str
    num_slices: int
    num_buckets: int
    range_buckets: int
    """buckets of a cell of a slice; 1: no stage between"""
    schema: pa.Schema
    """of the rows, with at least the key, key_hash, slice and row of `staging.SCHEMA`"""

    @classmethod
    def plan(cls, staging: str, num_slices: int, num_buckets: int, schema: pa.Schema = SCHEMA) -> Shuffle:
        """With a stage between if there are too many cells without one."""
        is_direct = num_slices * num_buckets <= ENOUGH_CELLS
        return cls(staging, num_slices, num_buckets, 1 if is_direct else _root(num_buckets), schema)

    @property
    def num_pieces(self) -> int:
        """Pieces of the stage between; 0: there is none."""
        return self.num_groups * self.num_ranges if self.range_buckets > 1 else 0

    @property
    def num_reads(self) -> int:
        """Most reads of all stages together: where a cell lies, and the cell."""
        if not self.num_pieces:
            return 2 * self.num_slices * self.num_buckets
        return 2 * (self.num_slices * self.num_ranges + self.num_groups * self.num_buckets)

    def write_slice(self, number: int, batches: Sequence[pa.Table]) -> Checksums:
        """Write the records of a slice."""

        def cell_of(key_hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
            return bucket_of(key_hashes, self.num_buckets) // self.range_buckets

        path = self._slice_path(number)
        return {path: write_cells(path, batches, cell_of, self.num_ranges, self.schema)}

    def regroup(self, piece: int) -> Checksums:
        """Write what a group of slices has of a range of buckets, all slices written."""
        group, of_range = divmod(piece, self.num_ranges)
        start, first = group * self._group_slices, of_range * self.range_buckets
        slices = range(start, min(start + self._group_slices, self.num_slices))

        def cell_of(key_hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
            return bucket_of(key_hashes, self.num_buckets) - first

        rows = read_cells([self._slice_path(number) for number in slices], of_range, self.schema)
        path = self._piece_path(group, of_range)
        num_cells = min(self.range_buckets, self.num_buckets - first)
        return {path: write_cells(path, [rows], cell_of, num_cells, self.schema)}

    def read_bucket(self, bucket: int) -> pa.Table:
        """The records of a bucket in the order (key hash, key, place in the source), all stages before it done."""
        if not self.num_pieces:
            return read_cells([self._slice_path(number) for number in range(self.num_slices)], bucket, self.schema)
        of_range, cell = divmod(bucket, self.range_buckets)
        paths = [self._piece_path(group, of_range) for group in range(self.num_groups)]
        return read_cells(paths, cell, self.schema)

    @property
    def num_ranges(self) -> int:
        """Cells of a slice."""
        return -(-self.num_buckets // self.range_buckets)

    @property
    def _group_slices(self) -> int:
        # Of each slice a piece takes one range: together as much as a slice.
        return self.num_ranges

    @property
    def num_groups(self) -> int:
        """Groups of slices."""
        return -(-self.num_slices // self._group_slices)

    def _slice_path(self, number: int) -> str:
        return storage.join(self.staging, f"slice-{number:06d}.cells")

    def _piece_path(self, group: int, of_range: int) -> str:
        return storage.join(self.staging, f"group-{group:05d}-range-{of_range:05d}.cells")


def _root(number: int) -> int:
    """The least number whose square is no less."""
    return math.isqrt(max(0, number - 1)) + 1
