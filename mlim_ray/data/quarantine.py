"""The rows that say what became of each record that was not accepted, and what it was if that is to be kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.images import Pixels, encode_stored
from mlim_ray.data.manifest import StoredFile
from mlim_ray.data.parquet import read_parquet
from mlim_ray.data.rejection import RejectedRecord

QUARANTINE_FOLDER = "quarantine"
ROWS_PER_FILE = 50_000
BYTES_PER_FILE = 64_000_000
"""a file is closed past either; also the most that is held in memory while files are joined, and a batch more"""
ORIGINAL_COLUMNS = ("original_key", "image", "text", "label", "group", "split", "attributes")
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        *((name, pa.binary()) for name in ORIGINAL_COLUMNS),
    ]
)
"""The last seven columns are the record as the source gave it, null unless it was asked to be kept; the attributes as a
JSON object."""

Place = tuple[str, int]
"""Relative source file and row: what identifies a record."""


def write_quarantine(
    path: str, records: Iterable[RejectedRecord], originals: Mapping[Place, RawRecord] | None = None
) -> None:
    """Write rejected records, with their originals where given, as one Parquet file at `path`."""
    rows = []
    for record in records:
        original = None if originals is None else originals.get((record.source, record.row))
        rows.append(
            {
                "key": record.key,
                "source": record.source,
                "row": record.row,
                "stage": record.stage.value,
                "reason": record.reason.value,
                "detail": record.detail,
                **({} if original is None else _original(original)),
            }
        )
    _write(path, pa.Table.from_pylist(rows, SCHEMA))


def gather_quarantine(tables: Iterable[pa.Table], out: str, name: str) -> list[StoredFile]:
    """Join tables, in their order, to `out/quarantine/<name>-NNNNN.parquet`; one at a time is in memory."""
    waiting: list[pa.Table] = []
    files: list[StoredFile] = []

    def close() -> None:
        path = f"{QUARANTINE_FOLDER}/{name}-{len(files):05d}.parquet"
        content = _write(storage.join(out, path), pa.concat_tables(waiting))
        files.append(StoredFile(path=path, num_bytes=len(content), sha256=storage.sha256_of(content)))
        waiting.clear()

    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS_PER_FILE or sum(part.nbytes for part in waiting) >= BYTES_PER_FILE:
            close()
    if sum(map(len, waiting)):
        close()
    return files


def read_quarantine(paths: Iterable[str]) -> Iterator[pa.Table]:
    """The rows of quarantine files, one file at a time."""
    for path in paths:
        # Sets of the oldest version that is read lack the last column.
        yield pa.concat_tables([SCHEMA.empty_table(), read_parquet(path)], promote_options="default").cast(SCHEMA)


def places_of(table: pa.Table) -> list[Place]:
    """Which records the rows of a table are about."""
    return list(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))


def _original(record: RawRecord) -> dict[str, bytes | None]:
    texts = {name: _to_text(value) for name, value in record.attributes.items()}
    attributes = json.dumps(texts) if texts else None
    values = (record.key, record.image, record.text, record.label, record.group, record.split, attributes)
    return {name: _to_bytes(value) for name, value in zip(ORIGINAL_COLUMNS, values, strict=True)}


def _to_text(value: Any) -> str | None:
    found = _to_bytes(value)
    # Bytes that are no UTF-8 become lone surrogates, which JSON escapes.
    return None if found is None else found.decode("utf-8", "surrogateescape")


def _to_bytes(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray):
        pixels: Pixels = value
        return encode_stored(pixels, "png")
    if isinstance(value, (str, int, float)):
        return str(value).encode("utf-8", "surrogateescape")
    # A Problem, a null, or a value of a type that no column takes: the reason says which.
    return None


def _write(path: str, table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    # Pictures hardly shrink; a dictionary of them would be built in vain.
    compression = {name: "none" if name == "image" else "zstd" for name in SCHEMA.names}
    plain = [name for name in SCHEMA.names if name not in {"image", "original_key", "text"}]
    pq.write_table(table, sink, compression=compression, use_dictionary=plain, row_group_size=1_000)
    content = memoryview(sink.getvalue())
    storage.write_bytes_atomically(path, content)
    return content
