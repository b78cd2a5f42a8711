"""Which records of a source are looked at: the same ones each time, from evenly spaced places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlim_ray.data.sources import Slice, limit_slices
from mlim_ray.data.sources.source import SLICE_RECORDS

NUM_PLACES = 16
"""places that a sample comes from, where each holds enough records"""
MAX_PLACES = 128
_UNIT_RECORDS = 64
"""a slice may be cut at multiples of this: every source can begin to read there"""
# A large row group has to be decoded from its beginning; parquet_files.py cuts one into so many slices.
_SLICES_PER_ROW_GROUP = 8
_MAX_SKIPPED_BYTES = 64_000_000


def plan_sample(
    slices: Sequence[Slice], num_wanted: int, bytes_per_record: float, *, is_remote: bool = False
) -> list[Slice]:
    """Parts of `slices` that hold about `num_wanted` records, evenly spaced over the source.

    Fewer where the source, or MAX_PLACES small slices, do not hold as many. Places deep inside a huge row
    group, which cannot be reached without reading what comes before them, are left out.

    Args:
        slices: of the source, in its order.
        num_wanted: at least 1.
        bytes_per_record: as they lie in the source; 0 where unknown.
        is_remote: whether every place is a download: then slices are read from their beginning only.
    """
    if sum(part.stop - part.start for part in slices) <= num_wanted:
        return list(slices)
    is_cut = len(slices) < NUM_PLACES and not is_remote
    reached = [
        place for place, num_skipped in _places(slices, is_cut) if num_skipped * bytes_per_record <= _MAX_SKIPPED_BYTES
    ]
    most = min(len(reached), max(MAX_PLACES, -(-num_wanted // _UNIT_RECORDS)))
    num_places = min(NUM_PLACES, most, num_wanted)
    chosen = _spaced(reached, num_places)
    while num_places < most and _capacity(chosen, num_wanted) < num_wanted:
        num_places = min(2 * num_places, most)
        chosen = _spaced(reached, num_places)
    return list(_cut(chosen, num_wanted))


def _spaced(parts: Sequence[Slice], count: int) -> list[Slice]:
    return [parts[i * len(parts) // count] for i in range(count)]


def _capacity(parts: Sequence[Slice], num_wanted: int) -> int:
    return sum(part.stop - part.start for part in _cut(parts, num_wanted))


def _cut(parts: Sequence[Slice], num_wanted: int) -> Iterator[Slice]:
    for i, part in enumerate(parts):
        share = num_wanted * (i + 1) // len(parts) - num_wanted * i // len(parts)
        stop = min(part.stop, part.start + share)
        if stop > part.start:
            yield Slice(part.file, part.start, stop)


def _places(slices: Sequence[Slice], is_cut: bool) -> Iterator[tuple[Slice, int]]:
    """Where a sample may begin, and how many records of a huge row group are decoded to get there."""
    previous: Slice | None = None
    place_in_group = 0
    for part in slices:
        is_large = part.stop - part.start > SLICE_RECORDS
        follows = previous is not None and previous.file == part.file and previous.stop - previous.start > SLICE_RECORDS
        place_in_group = (place_in_group + 1) % _SLICES_PER_ROW_GROUP if is_large and follows else 0
        previous = part
        for place in limit_slices([part], _UNIT_RECORDS) if is_cut else [part]:
            skipped = place_in_group * (part.stop - part.start) + place.start - part.start
            yield place, skipped if is_large else 0
