"""How much of a source a task of `prepare` takes: the source alone decides, so that the same set comes out anywhere."""

from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.sources import Slice, Source, join_slices, limit_slices

SLICE_BYTES = 48_000_000
"""what a task of the first pass holds of cleaned records"""
BUCKET_BYTES = 32_000_000
"""what a task of the second pass holds of them, a few times over: sorted, by split, as Parquet"""
_SLICE_MULTIPLE = 64
# A bucket reads a cell of every slice, so a large set of small records is cut into fewer.
_ENOUGH_SLICES = 256
# Of rich photographs; where pictures and texts are all larger, a bucket takes that much more.
_BYTES_PER_PIXEL = {"raw": 3.0, "png": 2.0, "jpeg": 0.5, "webp": 0.4}
_TEXT_BYTES = 256
# Enough pieces of work for a few cores where the records would fit into one bucket.
_MIN_BUCKETS = 4
_MIN_BUCKET_RECORDS = 2_048
# Small pictures: what Python holds for each record outweighs them, and a large set takes no more than a small one.
_MAX_TASK_RECORDS = 4_096


def source_slices(source: Source, rules: CleaningRules) -> list[Slice]:
    """The source's slices, no larger than memory allows, and not more than cores need where records are small."""
    slices = source.slices()
    most = _most_in_slice(rules)
    wanted = sum(part.stop - part.start for part in slices) // _ENOUGH_SLICES
    return limit_slices(join_slices(slices, min(wanted, most, _MAX_TASK_RECORDS)), most, _SLICE_MULTIPLE)


def slice_records(rules: CleaningRules) -> int:
    """Most records of a slice of a large source."""
    return min(_most_in_slice(rules), _MAX_TASK_RECORDS)


def _most_in_slice(rules: CleaningRules) -> int:
    # A multiple of every row group, so that slices of a prepared set begin with one.
    return max(1, SLICE_BYTES // _record_bytes(rules) // _SLICE_MULTIPLE) * _SLICE_MULTIPLE


def _record_bytes(rules: CleaningRules) -> int:
    return int(rules.image.size**2 * _BYTES_PER_PIXEL[rules.image_encoding]) + _TEXT_BYTES


def num_buckets(num_records: int, rules: CleaningRules) -> int:
    """The pieces of the second pass, which depend on the source alone."""
    by_size = max(-(-num_records * _record_bytes(rules) // BUCKET_BYTES), -(-num_records // _MAX_TASK_RECORDS))
    by_cores = min(_MIN_BUCKETS, num_records // _MIN_BUCKET_RECORDS)
    return max(1, by_size, by_cores)
