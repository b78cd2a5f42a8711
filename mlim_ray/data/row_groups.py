"""Row groups of a set's shards, read as they were prepared, or named as damaged.

Pages carry a CRC. What it does not cover, headers and footer, is held against the manifest: the file's size, its
records and row groups, columns and types.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.data import storage
from mlim_ray.data.manifest import Shard
from mlim_ray.data.parquet import shard_schema
from mlim_ray.data.shard_cache import ShardCache

MAX_OPEN_SHARDS = 16
"""file handles a process keeps"""
# A place in the file that is none: a damaged footer led there, no disk failed.
_NO_SUCH_PLACE = {errno.EINVAL, errno.EOVERFLOW}

logger = logging.getLogger(__name__)


class DamagedShardError(ValueError):
    """A row group that is not what was prepared; the message names the shard and the mend, `detail` what is wrong."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


@dataclass(frozen=True)
class RowGroup:
    """Where a row group lies, and what the manifest says of it."""

    folder: str
    """of the set"""
    shard: Shard
    index: int
    """within the shard"""
    group_records: int
    """records of every row group of the shard but the last"""
    has_attributes: bool
    """whether the shard has the column of attributes"""

    @property
    def path(self) -> str:
        """The shard's own path."""
        return storage.join(self.folder, self.shard.path)

    @property
    def num_records(self) -> int:
        """Records of this row group."""
        return min(self.group_records, self.shard.num_records - self.index * self.group_records)

    def damaged(self, detail: str) -> DamagedShardError:
        """The error that says so."""
        return DamagedShardError(
            f"{self.path}, row group {self.index}: {detail}; it is not what was prepared. See what else is damaged "
            f"with mlim-ray verify {self.folder}, and restore the shard from a copy or prepare the set again; or "
            f"train without such records: --feed.on-damaged-shard skip",
            detail,
        )


def read_row_group(group: RowGroup, columns: Sequence[str] | None, cache: ShardCache | None) -> pa.Table:
    """The records of a row group, from the node's cache where there is one; all columns if none are named.

    Raises:
        DamagedShardError: the shard is missing, or is not what was prepared there, at the second look too.
        StorageError: it cannot be read for another reason: a server, a disk, a permission.
    """
    try:
        return _read(group, columns, cache)
    except DamagedShardError as error:
        # What came by a network, or lies on this node's disk, may be damaged where the shard itself is not.
        logger.warning("%s, row group %d: %s; read again", group.path, group.index, error.detail)
        open_shard.cache_clear()
        if cache is not None:
            cache.discard(group.shard)
        return _read(group, columns, cache)


@dataclass(frozen=True)
class OpenShard:
    """A shard under the hands of this process."""

    parquet: pq.ParquetFile
    file: BinaryIO
    is_copy: bool
    """whether it is the node's own copy"""


@lru_cache(maxsize=MAX_OPEN_SHARDS)
def open_shard(path: str, shard: Shard, num_groups: int, cache: ShardCache | None) -> OpenShard:
    """A shard whose footer agrees with the manifest. Raises ValueError, or what Arrow raises, where it does not.

    The sha256 is part of `shard`: a set that was prepared anew has other content under the same path.
    """
    copy = None if cache is None else cache.open(path, shard)
    # No memory map: where a mapped file is cut short, the process dies.
    file = storage.open_read(path) if copy is None else copy
    num_bytes = file.seek(0, os.SEEK_END)
    if num_bytes != shard.num_bytes:
        raise ValueError(f"it has {num_bytes:,} bytes instead of {shard.num_bytes:,}")
    is_far = copy is None and storage.is_remote(path)
    parquet = pq.ParquetFile(file, pre_buffer=is_far, page_checksum_verification=True)
    found = (parquet.metadata.num_rows, parquet.metadata.num_row_groups)
    if found != (shard.num_records, num_groups):
        raise ValueError(f"it holds {found[0]} records in {found[1]} row groups instead of {shard.num_records}")
    return OpenShard(parquet, file, copy is not None)


def _read(group: RowGroup, columns: Sequence[str] | None, cache: ShardCache | None) -> pa.Table:
    with _naming(group):
        num_groups = -(-group.shard.num_records // group.group_records)
        opened = open_shard(group.path, group.shard, num_groups, cache)
        if cache is not None and opened.is_copy:
            cache.used(opened.file)
        wanted = None if columns is None else list(columns)
        table = opened.parquet.read_row_group(group.index, columns=wanted, use_threads=False)
        if len(table) != group.num_records:
            raise ValueError(f"it holds {len(table)} records instead of {group.num_records}")
        schema = shard_schema(group.has_attributes)
        expected = schema if wanted is None else pa.schema([schema.field(name) for name in wanted])
        table = table.select(expected.names)
        if not table.schema.equals(expected):
            raise ValueError(f"its columns are {', '.join(f'{field.name} {field.type}' for field in table.schema)}")
        return table


@contextmanager
def _naming(group: RowGroup) -> Iterator[None]:
    """Turn what is wrong with the content of a row group into a DamagedShardError."""
    try:
        yield
    except storage.MissingPathError as error:
        raise group.damaged("the shard is missing") from error
    except storage.StorageError:
        raise
    except OSError as error:
        # Arrow's own errors of this class have no number; the system's have.
        if error.errno is not None and error.errno not in _NO_SUCH_PLACE:
            raise storage.StorageError(f"cannot read {group.path}: {error.strerror or error}") from error
        raise group.damaged(_one_line(error)) from error
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise group.damaged(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    # The library's messages may run over many lines, and end in a full stop.
    return " ".join(str(error).split())[:200].rstrip(".")
