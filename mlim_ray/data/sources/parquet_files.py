"""Parquet files as a source: pictures as bytes, as structs of bytes, or as paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.parquet import open_parquet, reading
from mlim_ray.data.rejection import Problem
from mlim_ray.data.schema import Columns, Role, check_column, guess_columns, is_image_struct, is_text_type
from mlim_ray.data.sources.pictures import PictureFolder
from mlim_ray.data.sources.source import BATCH_BYTES, SLICE_RECORDS, Slice, cut

# A row group has to be decoded from its beginning, so each slice of a large one reads what comes before it
# too.
_MAX_SLICES_PER_ROW_GROUP = 8
_FOOTER_THREADS = 8


@dataclass(frozen=True)
class _File:
    info: storage.FileInfo
    group_ends: tuple[int, ...]
    """row after the last of each row group"""


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files of one schema, in the order of their relative paths."""

    name: str
    columns: Columns
    column_types: dict[str, str]
    files: tuple[_File, ...]
    image_folder: str | None
    format: str = "Parquet"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, files: list[storage.FileInfo], config: PrepareConfig) -> ParquetSource:
        """Read the footers of `files`.

        Raises ValueError that names the file for a damaged one, for one whose columns differ from the first
        one's, and where no column fits a role.
        """
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            footers = list(pool.map(_read_footer, files))
        first = footers[0][0]
        columns = guess_columns(first, config, name)
        for file, (schema, _) in zip(files, footers, strict=True):
            for role, column in columns.by_role().items():
                check_column(schema, Role(role), column, file.path)
        return cls(
            name,
            columns,
            {field.name: str(field.type) for field in first},
            tuple(_File(file, ends) for file, (_, ends) in zip(files, footers, strict=True)),
            None if config.image_folder is None else storage.absolute(config.image_folder),
        )

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and change stamp of every file."""
        found = [(file.info.relative, file.info.num_bytes, file.info.stamp) for file in self.files]
        if self.image_folder is not None:
            found += PictureFolder(self.image_folder).identity()
        return found

    def slices(self) -> list[Slice]:
        """Runs of small row groups, and parts of large ones."""
        found = []
        for number, file in enumerate(self.files):
            start = previous = 0
            for end in file.group_ends:
                if end - start > SLICE_RECORDS and previous > start:
                    found.append(Slice(number, start, previous))
                    start = previous
                if end - start > SLICE_RECORDS:
                    found += cut(number, start, end, _MAX_SLICES_PER_ROW_GROUP)
                    start = end
                previous = end
            if previous > start:
                found.append(Slice(number, start, previous))
        return found

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice, decoded from the row groups that it touches."""
        file = self.files[part.file]
        with reading(file.info.path), open_parquet(file.info.path, memory_map=True) as opened:
            group_start = 0
            for group, group_end in enumerate(file.group_ends):
                if group_start < part.stop and group_end > part.start:
                    yield from self._read_group(opened, file, group, group_start, part)
                group_start = group_end

    def _read_group(
        self, opened: pq.ParquetFile, file: _File, group: int, row: int, part: Slice
    ) -> Iterator[list[RawRecord]]:
        size = opened.metadata.row_group(group)
        bytes_per_row = max(1, size.total_byte_size // max(1, size.num_rows))
        batch_rows = min(SLICE_RECORDS, max(1, BATCH_BYTES // bytes_per_row))
        for batch in opened.iter_batches(
            batch_rows, row_groups=[group], columns=self.columns.names(), use_threads=False
        ):
            start, stop = max(part.start - row, 0), min(part.stop - row, batch.num_rows)
            if start < stop:
                yield self._records(file, batch.slice(start, stop - start), row + start)
            row += batch.num_rows
            if row >= part.stop:
                return

    def _records(self, file: _File, batch: pa.RecordBatch, first_row: int) -> list[RawRecord]:
        def values(column: str | None) -> list[Any]:
            return [None] * batch.num_rows if column is None else to_values(batch.column(column))

        source = file.info.relative
        keys = values(self.columns.key)
        if self.columns.key is None:
            keys = [f"{source}:{first_row + i}" for i in range(batch.num_rows)]
        rows = zip(
            keys,
            self._images(file, batch.column(self.columns.image)),
            values(self.columns.text),
            values(self.columns.label),
            values(self.columns.group),
            values(self.columns.split),
            strict=True,
        )
        return [RawRecord(source, row, *record) for row, record in enumerate(rows, first_row)]

    def _images(self, file: _File, column: pa.Array) -> Sequence[bytes | Problem | None]:
        folder = PictureFolder(self.image_folder or storage.parent(file.info.path))
        if is_text_type(column.type):
            return folder.read_all(to_values(column))
        if not is_image_struct(column.type):
            return to_values(column)
        # Flattening keeps the nulls of the struct, which its own fields do not have.
        names = [field.name for field in column.type]
        fields = dict(zip(names, column.flatten(), strict=True))
        images = to_values(fields["bytes"])
        if "path" not in fields:
            return images
        paths = to_values(fields["path"])
        return [
            folder.read(path) if image is None and path is not None else image
            for image, path in zip(images, paths, strict=True)
        ]


def to_values(column: pa.Array) -> list[Any]:
    """Values of a column for Python; strings as bytes, because a file may hold invalid UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    return column.to_pylist()


def _read_footer(file: storage.FileInfo) -> tuple[pa.Schema, tuple[int, ...]]:
    with open_parquet(file.path) as opened:
        metadata = opened.metadata
        ends, total = [], 0
        for group in range(metadata.num_row_groups):
            total += metadata.row_group(group).num_rows
            ends.append(total)
        return opened.schema_arrow, tuple(ends)
