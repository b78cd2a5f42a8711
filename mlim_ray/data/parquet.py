"""The columns of a shard, and opening Parquet files so that a damaged one is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.data import storage

SHARD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("key_hash", pa.uint64(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("word_of_token", pa.list_(pa.int16()), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
    ]
)
"""Columns of every shard; token_ids and word_of_token have [CLS] and [SEP] and no padding."""
ATTRIBUTES = pa.field("attributes", pa.map_(pa.string(), pa.string()), nullable=False)
"""Column that shards of a set with attribute columns have too: name to value, what a record lacks left out."""

_LARGE_GROUP_BYTES = 64_000_000
_BUFFER_BYTES = 8 << 20


def shard_schema(has_attributes: bool) -> pa.Schema:
    """Columns of the shards of a set with or without attributes."""
    return SHARD_SCHEMA.append(ATTRIBUTES) if has_attributes else SHARD_SCHEMA


def open_parquet(path: str, *, memory_map: bool = False) -> pq.ParquetFile:
    """The Parquet file at `path`, local or in S3. Raises ValueError if it is none, or damaged.

    Pages are checked against their checksums where the file has any; most writers leave them out.
    """
    with reading(path):
        if storage.is_remote(path):
            return _open_remote(storage.open_read(path))
        if not storage.exists(path):
            raise storage.MissingPathError(f"cannot read {path}: it does not exist; check the path")
        return pq.ParquetFile(path, memory_map=memory_map, page_checksum_verification=True)


def _open_remote(file: BinaryIO) -> pq.ParquetFile:
    opened = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
    metadata = opened.metadata
    largest = max((metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)), default=0)
    if largest <= _LARGE_GROUP_BYTES:
        return opened
    # Whole columns of a large row group would be fetched, and held, for its first record.
    return pq.ParquetFile(
        file, metadata=metadata, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
    )


def read_parquet(path: str) -> pa.Table:
    """All rows of a small Parquet file, local or in S3. Raises ValueError as `open_parquet` does.

    Never `pyarrow.parquet.read_table` on an open file: its scanner lets go of the Python file in a thread of its own,
    after it has returned, and a process that ends at that moment is aborted.
    """
    opened = open_parquet(path)
    with reading(path):
        return opened.read(use_threads=False)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what Arrow raises over the content of `path` into a ValueError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # The library's messages may run over many lines, and the names in a damaged file may be no UTF-8.
        detail = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is damaged or no Parquet file: {detail}") from error
