"""Accepted records between the two passes of `prepare`: by slice on the way in, by bucket on the way out.

A bucket is a range of key hashes, so buckets in order hold all records in the order of their key hashes,
and all records of one key are in one bucket. Each slice is one Arrow file with one record batch a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlim_ray.data import storage
from mlim_ray.data.cleaning import AcceptedRecord

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("key_hash", pa.uint64()),
        ("slice", pa.int64()),
        ("row", pa.int64()),
        ("source", pa.string()),
        ("image", pa.binary()),
        ("pixel_sums", pa.list_(pa.int64(), 6)),
        ("text", pa.string()),
        ("was_cut", pa.bool_()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)
"""`slice` and `row` give the order of the source."""


def bucket_of(key_hashes: NDArray[np.uint64], num_buckets: int) -> NDArray[np.int64]:
    """The bucket of each key hash: equal ranges of the 64-bit numbers."""
    width = -(-(1 << 64) // num_buckets)
    # One bucket's width is 2^64, which no uint64 holds.
    if num_buckets == 1:
        return np.zeros(len(key_hashes), np.int64)
    return (key_hashes // np.uint64(width)).astype(np.int64)


def write_slice(path: str, batches: Sequence[pa.Table], num_buckets: int) -> None:
    """Write the records of a slice, given as tables of SCHEMA, as one file at `path`."""
    table = pa.concat_tables(batches) if batches else SCHEMA.empty_table()
    buckets = bucket_of(table["key_hash"].to_numpy(), num_buckets)
    order = np.argsort(buckets, kind="stable")
    edges = np.searchsorted(buckets[order], np.arange(num_buckets + 1))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        for start, stop in pairwise(edges):
            part = table.take(order[start:stop]).combine_chunks()
            writer.write_batch(part.to_batches()[0] if len(part) else _EMPTY)
    storage.write_bytes_atomically(path, memoryview(sink.getvalue()))


def to_table(records: Sequence[AcceptedRecord], number: int) -> pa.Table:
    """Accepted records of slice `number` as a table of SCHEMA."""
    columns = {
        name: pa.array([getattr(record, name) for record in records], SCHEMA.field(name).type)
        for name in SCHEMA.names
        if name != "slice"
    }
    columns["slice"] = pa.array(np.full(len(records), number, np.int64))
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def read_bucket(paths: Sequence[str], bucket: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The records of a bucket in the order (key hash, key, place in the source), first records first."""
    tables = list(_bucket_parts(paths, bucket, columns))
    table = pa.concat_tables(tables).combine_chunks()
    order = [("key_hash", "ascending"), ("key", "ascending"), ("slice", "ascending"), ("row", "ascending")]
    return table.take(pc.sort_indices(table, order))


def first_of_key(table: pa.Table) -> NDArray[np.bool_]:
    """For each record of a sorted bucket whether it is the first one with its key."""
    if len(table) == 0:
        return np.zeros(0, np.bool_)
    keys = table["key"].combine_chunks()
    same = pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[True], ~same])


def _bucket_parts(paths: Sequence[str], bucket: int, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    options = pa.ipc.IpcReadOptions(
        included_fields=None if columns is None else sorted(SCHEMA.get_field_index(name) for name in columns)
    )
    for path in paths:
        opened = storage.open_read(path) if storage.is_remote(path) else pa.memory_map(path)
        with opened as file, pa.ipc.open_file(file, options=options) as reader:
            yield pa.Table.from_batches([reader.get_batch(bucket)])


_EMPTY = pa.RecordBatch.from_pylist([], schema=SCHEMA)
