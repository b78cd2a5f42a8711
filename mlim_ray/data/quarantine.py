"""The rows that say what became of each record that was not accepted."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.data import storage
from mlim_ray.data.rejection import RejectedRecord

QUARANTINE_FOLDER = "quarantine"
ROWS_PER_FILE = 50_000
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def write_quarantine(path: str, records: Iterable[RejectedRecord]) -> None:
    """Write rejected records as one Parquet file at `path`."""
    rows = [(r.key, r.source, r.row, r.stage.value, r.reason.value, r.detail) for r in records]
    _write(path, pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA))


def gather_quarantine(parts: Iterable[str], out: str, stage: str) -> None:
    """Join the files `parts`, in their order, to `out/quarantine/<stage>-NNNNN.parquet`."""
    waiting: list[pa.Table] = []
    num_files = 0
    for path in parts:
        with storage.open_read(path) as file:
            waiting.append(pq.read_table(file, schema=SCHEMA))
        if sum(map(len, waiting)) >= ROWS_PER_FILE:
            _write(_file(out, stage, num_files), pa.concat_tables(waiting))
            waiting, num_files = [], num_files + 1
    if waiting:
        _write(_file(out, stage, num_files), pa.concat_tables(waiting))


def _file(out: str, stage: str, number: int) -> str:
    return storage.join(out, QUARANTINE_FOLDER, f"{stage}-{number:05d}.parquet")


def _write(path: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes_atomically(path, memoryview(sink.getvalue()))
