"""Files of accepted records between the two passes of `prepare`; `shuffle` says which there are.

A bucket is a range of key hashes, so buckets in order hold all records in the order of their key hashes, and all
records of one key are in one bucket: no table of keys is ever needed. A file begins with the places of its cells, one
a bucket or a range of them, so that a cell is read with two small reads. A cell is a record batch without pictures, and
then the pictures: nearly all of the bytes, they are put in order as they are written and read.

None of it is synced to the disk: what a power cut has damaged is made again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlim_ray.data import storage
from mlim_ray.data.cleaning import AcceptedRecord
from mlim_ray.data.parquet import ATTRIBUTES

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
        ("attributes", ATTRIBUTES.type),
    ]
)
"""`slice` and `row` give the order of the source."""
_NUM_BYTES = pa.field("num_bytes", pa.int64())
_IMAGE = "image"
_MOST_BINARY_BYTES = 2**31 - 1
_OFFSET = np.dtype("<u8")
_REMOTE_THREADS = 16


def bucket_of(key_hashes: NDArray[np.uint64], num_buckets: int) -> NDArray[np.int64]:
    """The bucket of each key hash: equal ranges of the 64-bit numbers."""
    # One bucket's width is 2^64, which no uint64 holds.
    if num_buckets == 1:
        return np.zeros(len(key_hashes), np.int64)
    return (key_hashes // np.uint64(_width(num_buckets))).astype(np.int64)


def bucket_range(bucket: int, num_buckets: int) -> tuple[int, int]:
    """The least key hash of a bucket, and the one after its greatest."""
    return bucket * _width(num_buckets), (bucket + 1) * _width(num_buckets)


def write_cells(
    path: str,
    batches: Sequence[pa.Table],
    cell_of: Callable[[NDArray[np.uint64]], NDArray[np.int64]],
    num_cells: int,
    schema: pa.Schema = SCHEMA,
) -> int:
    """Write records, given as tables of `schema`, as one file at `path`; gives its CRC-32.

    Args:
        cell_of: the cell of each key hash, from 0 to `num_cells` - 1.
        schema: pictures are the bytes of its column `image`, if it has one.
    """
    table = pa.concat_tables(batches) if batches else schema.empty_table()
    cells = cell_of(table["key_hash"].to_numpy())
    order = np.argsort(cells, kind="stable")
    edges = np.searchsorted(cells[order], np.arange(num_cells + 1))
    pictures: list[memoryview] = []
    if _has_pictures(schema):
        lengths = pc.binary_length(table[_IMAGE]).cast(_NUM_BYTES.type)
        found = [picture for chunk in table[_IMAGE].chunks for picture in _views(chunk)]
        pictures = [found[place] for place in order.tolist()]
        table = table.set_column(schema.get_field_index(_IMAGE), _NUM_BYTES, lengths)
    rows = table.take(order).combine_chunks()
    sizes: list[int] = []
    parts: list[bytes | memoryview] = []
    for start, stop in pairwise(edges.tolist()):
        cell = memoryview(rows.slice(start, stop - start).to_batches()[0].serialize() if stop > start else b"")
        parts += [cell, *pictures[start:stop]]
        sizes += [len(cell), sum(map(len, pictures[start:stop]))]
    offsets = np.cumsum([(2 * num_cells + 1) * _OFFSET.itemsize, *sizes]).astype(_OFFSET)
    return _write(path, [offsets.tobytes(), *parts])


def to_table(records: Sequence[AcceptedRecord], number: int) -> pa.Table:
    """Accepted records of slice `number` as a table of SCHEMA."""
    columns = {
        name: pa.array([getattr(record, name) for record in records], SCHEMA.field(name).type)
        for name in SCHEMA.names
        if name != "slice"
    }
    columns["slice"] = pa.array(np.full(len(records), number, np.int64))
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def read_cells(paths: Sequence[str], cell: int, schema: pa.Schema = SCHEMA) -> pa.Table:
    """The records of one cell of all files in the order (key hash, key, place in the source).

    `schema` is that of the files; it has at least SCHEMA's key, key_hash, slice and row.
    """
    if paths and storage.is_remote(paths[0]):
        with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
            cells = list(pool.map(lambda path: _read_cell(path, cell, schema), paths))
    else:
        cells = [_read_cell(path, cell, schema) for path in paths]
    found = [one for one in cells if one is not None]
    rows = pa.Table.from_batches([one.rows for one in found], _cell_schema(schema))
    order = pc.sort_indices(rows, [(name, "ascending") for name in ("key_hash", "key", "slice", "row")])
    if not _has_pictures(schema):
        return rows.take(order).combine_chunks()
    pictures = [picture for one in found for picture in one.pictures]
    images = _joined([pictures[place] for place in order.to_pylist()])
    return rows.take(order).set_column(schema.get_field_index(_IMAGE), schema.field(_IMAGE), images)


def write_rows(path: str, rows: pa.Table) -> int:
    """Write finished rows that wait for others at `path`; gives the CRC-32."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return _write(path, [memoryview(sink.getvalue())])


def read_rows(path: str) -> pa.Table:
    """What `write_rows` left at `path`. Raises StorageError if it was cut since."""
    try:
        return pa.ipc.open_stream(storage.read_bytes(path)).read_all()
    except pa.ArrowInvalid as error:
        raise storage.StorageError(f"{path} was cut or altered: {error}; remove it and start again") from error


def first_of_key(table: pa.Table) -> NDArray[np.bool_]:
    """For each record of a sorted bucket whether it is the first one with its key."""
    if len(table) == 0:
        return np.zeros(0, np.bool_)
    keys = table["key"].combine_chunks()
    same = pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[True], ~same])


@dataclass(frozen=True)
class _Cell:
    rows: pa.RecordBatch
    pictures: list[memoryview]


def _read_cell(path: str, cell: int, schema: pa.Schema) -> _Cell | None:
    places = np.frombuffer(_read(path, 2 * cell * _OFFSET.itemsize, 3 * _OFFSET.itemsize), _OFFSET)
    start, first_picture, stop = places.tolist()
    if start == stop:
        return None
    content = memoryview(_read(path, start, stop - start))
    rows = pa.ipc.read_record_batch(pa.py_buffer(content[: first_picture - start]), _cell_schema(schema))
    if not _has_pictures(schema):
        return _Cell(rows, [])
    lengths = rows.column(schema.get_field_index(_IMAGE)).to_pylist()
    ends = np.cumsum([first_picture - start, *lengths]).tolist()
    return _Cell(rows, [content[begin:end] for begin, end in pairwise(ends)])


def _views(column: pa.BinaryArray) -> Iterator[memoryview]:
    """The values of a column without nulls where they lie: as scalars of Arrow they take twenty times as long."""
    _, offsets, content = column.buffers()
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].tolist()
    data = memoryview(content or b"")
    return (data[start:stop] for start, stop in pairwise(places))


def _joined(pictures: Sequence[bytes | memoryview]) -> pa.Array | pa.ChunkedArray:
    """Pictures as a column, each copied once; Arrow's own way copies while it grows."""
    offsets = np.cumsum([0, *map(len, pictures)])
    if offsets[-1] > _MOST_BINARY_BYTES:
        return pa.array(pictures, pa.binary())
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(pictures))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(pictures), buffers)


def _write(path: str, parts: Sequence[bytes | memoryview]) -> int:
    storage.write_unsynced(path, parts)
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum


def _has_pictures(schema: pa.Schema) -> bool:
    # Embeddings of pictures have a column of that name too, of numbers.
    return _IMAGE in schema.names and schema.field(_IMAGE).type == SCHEMA.field(_IMAGE).type


def _cell_schema(schema: pa.Schema) -> pa.Schema:
    """Of a cell's rows: the length of each picture stands in its place."""
    return schema.set(schema.get_field_index(_IMAGE), _NUM_BYTES) if _has_pictures(schema) else schema


def _read(path: str, start: int, length: int) -> bytes:
    content = storage.read_range(path, start, length)
    if len(content) != length:
        raise storage.StorageError(f"{path} ends before byte {start + length}: it was cut; remove it and start again")
    return content


def _width(num_buckets: int) -> int:
    return -(-(1 << 64) // num_buckets)
