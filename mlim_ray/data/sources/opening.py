"""From what a person names to a source."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import overload

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import MANIFEST_FILE
from mlim_ray.data.sources.csv_files import CsvSource
from mlim_ray.data.sources.generated import PREFIX, GeneratedSource
from mlim_ray.data.sources.parquet_files import ParquetSource
from mlim_ray.data.sources.prepared_files import PreparedSource
from mlim_ray.data.sources.source import Source

EXPECTED = "a Parquet file or folder, a CSV or TSV with an image folder, generated:NUM_RECORDS, or a prepared set"
_PARQUET = (".parquet", ".pq")
_TABLES = (".csv", ".tsv")
_PARQUET_MAGIC = b"PAR1"


@overload
def open_source(name: str, config: PrepareConfig) -> Source: ...


@overload
def open_source(name: str, config: PrepareConfig, known: Mapping[str, tuple[int, str]]) -> Source | None: ...


def open_source(name: str, config: PrepareConfig, known: Mapping[str, tuple[int, str]] | None = None) -> Source | None:
    """The source called `name`: EXPECTED, local or in S3, told apart by their content.

    With `known`, the size and stamp of files that were read before, only the files that are not among them; None if
    there are no others.

    `config` is resolved (no auto). Raises ValueError that names the path for a missing path, an empty
    folder, a damaged file, and a table without a picture or text column.
    """
    if known is not None and name.startswith(PREFIX):
        raise ValueError(f"{name} has no files to append; expected files of records")
    if name.startswith(PREFIX):
        return GeneratedSource.open(name, config)
    path = storage.absolute(name)
    if not storage.exists(path):
        raise storage.MissingPathError(f"{name} does not exist; expected {EXPECTED}")
    if storage.exists(storage.join(path, MANIFEST_FILE)):
        return PreparedSource.open(name, config)
    files = [file for file in storage.list_files(path) if not _is_hidden(file.relative)]
    if known is not None and files:
        files = [file for file in files if not _is_known(file, known)]
        if not files:
            return None
    if not files:
        raise ValueError(f"{name} holds no files; expected {EXPECTED}")
    tables = [file for file in files if file.relative.lower().endswith(_TABLES)]
    parquet = [file for file in files if file.relative.lower().endswith(_PARQUET)]
    if not tables and not parquet and len(files) == 1 and _is_parquet(files[0].path):
        parquet = files
    source: Source
    if parquet:
        source = ParquetSource.open(name, parquet, config)
    elif tables:
        source = CsvSource.open(name, tables, config)
    else:
        kinds = sorted({posixpath.splitext(file.relative)[1] or "no suffix" for file in files})
        raise ValueError(f"{name} holds only files of {', '.join(kinds[:8])}; expected {EXPECTED}")
    if not source.slices():
        raise ValueError(f"{name} holds no records; expected at least one row")
    return source


def resolve_prepare_config(config: PrepareConfig, image_size: int) -> PrepareConfig:
    """`config` without auto: pictures of `image_size` pixels, stored raw up to 64 pixels and as JPEG above.

    Up to 64 pixels a raw picture (12 KiB) is read faster than a JPEG is decoded; above, the disk decides.
    """
    size = image_size if config.image_size == "auto" else config.image_size
    encoding = ("raw" if size <= 64 else "jpeg") if config.image_encoding == "auto" else config.image_encoding
    return config.model_copy(update={"image_size": size, "image_encoding": encoding})


def _is_known(file: storage.FileInfo, known: Mapping[str, tuple[int, str]]) -> bool:
    before = known.get(file.relative)
    if before is not None and before != (file.num_bytes, file.stamp):
        raise ValueError(
            f"{file.path} changed since the set was made from it; append takes new files only: give it another name, "
            f"or prepare the set anew with --overwrite"
        )
    return before is not None


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))


def _is_parquet(path: str) -> bool:
    return storage.read_bytes(path, len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
