"""What every source of raw records offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.schema import Columns

SLICE_RECORDS = 1_024
"""Records of a slice: large beside the cost of a task, small beside memory."""
BATCH_BYTES = 32_000_000
"""Raw bytes that a source holds at a time, as far as its files tell beforehand."""
BATCH_RECORDS = 128
"""Records that a source gives at a time, and no more of them than BATCH_BYTES hold."""
ZIPPED_SLICES = 8
"""Most slices of a gzip file: each has to unzip what comes before it too."""


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` (exclusive) of file number `file` of a source."""

    file: int
    start: int
    stop: int


class Source(Protocol):
    """Raw records in a fixed order, cut into slices that can be read independently; travels with a task."""

    @property
    def name(self) -> str:
        """The source as it was given."""

    @property
    def format(self) -> str:
        """What kind of source it is, in words."""

    @property
    def columns(self) -> Columns:
        """The column of each role."""

    @property
    def column_types(self) -> dict[str, str]:
        """All columns and their types."""

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and change stamp of everything the records come from; equal for an unchanged source."""

    @property
    def generated(self) -> Generated | None:
        """Which generated catalogue this is, if it is one."""

    def slices(self) -> list[Slice]:
        """All slices, in the order of the records; they depend on the source alone."""

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice, in order, in batches of bounded size.

        Raises ValueError that names the file if it cannot be read.
        """


def in_batches(records: Iterable[RawRecord]) -> Iterator[list[RawRecord]]:
    """Records in order, in batches that end once they hold BATCH_BYTES of pictures."""
    batch: list[RawRecord] = []
    num_bytes = 0
    for record in records:
        batch.append(record)
        num_bytes += len(record.image) if isinstance(record.image, bytes) else 0
        if num_bytes >= BATCH_BYTES or len(batch) == BATCH_RECORDS:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def source_label(name: str) -> str:
    """The last part of a source's name: what a manifest says of it, without the folders of one machine."""
    return name.rstrip("/").rpartition("/")[2] or name


def limit_slices(slices: list[Slice], max_records: int, multiple: int = 1) -> list[Slice]:
    """The same rows as slices of at most `max_records`; for records that are large once they are cleaned.

    What is divided is divided evenly, at a `multiple` of records after the slice's beginning.
    """
    found = []
    for part in slices:
        num_records = part.stop - part.start
        num_parts = -(-num_records // max_records)
        size = -(-num_records // (num_parts * multiple)) * multiple
        found += [Slice(part.file, start, min(start + size, part.stop)) for start in range(part.start, part.stop, size)]
    return found


def join_slices(slices: list[Slice], max_records: int) -> list[Slice]:
    """The same rows with neighbouring slices of a file joined, as far as they stay within `max_records`."""
    found: list[Slice] = []
    for part in slices:
        last = found[-1] if found else None
        if (
            last is not None
            and (last.file, last.stop) == (part.file, part.start)
            and part.stop - last.start <= max_records
        ):
            found[-1] = Slice(part.file, last.start, part.stop)
        else:
            found.append(part)
    return found


def cut(file: int, start: int, stop: int, max_slices: int | None = None) -> list[Slice]:
    """Rows `start` to `stop` of a file as slices of about SLICE_RECORDS, at most `max_slices` of them."""
    num_slices = max(1, -(-(stop - start) // SLICE_RECORDS))
    if max_slices is not None:
        num_slices = min(num_slices, max_slices)
    edges = [start + (stop - start) * i // num_slices for i in range(num_slices + 1)]
    return [Slice(file, a, b) for a, b in pairwise(edges) if b > a]
