"""Parquet files as a source: pictures as bytes, as structs of bytes, or as paths."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.parquet import open_parquet, reading
from mlim_ray.data.schema import Columns, check_columns, guess_columns, is_image_struct, is_text_type
from mlim_ray.data.sources.arrow_rows import to_records, to_values
from mlim_ray.data.sources.listing import Identity, Listing
from mlim_ray.data.sources.pictures import PictureFolder, refuse_urls
from mlim_ray.data.sources.source import BATCH_BYTES, BATCH_RECORDS, SLICE_RECORDS, Slice, cut, in_batches
from mlim_ray.data.sources.tables import PicturePlaces

# A row group has to be decoded from its beginning, so each slice of a large one reads what comes before it
# too.
_MAX_SLICES_PER_ROW_GROUP = 8
_FOOTER_THREADS = 8
_SAMPLED_ROWS = 100
_REPEATED_BYTES = 256_000_000


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
    places: PicturePlaces | None
    """where the pictures lie that are not in the files; None if all are"""
    format: str = "Parquet"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, files: list[storage.FileInfo], listing: Listing, config: PrepareConfig) -> ParquetSource:
        """Read the footers of `files`.

        Raises ValueError that names the file for a damaged one and for one that lacks a column which the
        first one has, where no column fits a role, and where the pictures are URLs.
        """
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            footers = list(pool.map(_read_footer, files))
        first = footers[0][0]
        columns = guess_columns(first, config, name)
        has_paths = False
        for file, (schema, ends) in zip(files, footers, strict=True):
            check_columns(schema, columns, file.path)
            kind = schema.field(columns.image).type
            if is_text_type(kind) and ends and not has_paths:
                refuse_urls(name, columns.image, _first_values(file, columns.image))
            has_paths = has_paths or is_text_type(kind) or is_image_struct(kind)
        return cls(
            name,
            columns,
            {field.name: str(field.type) for field in first},
            tuple(_File(file, ends) for file, (_, ends) in zip(files, footers, strict=True)),
            PicturePlaces.of(files, listing, config) if has_paths else None,
        )

    @property
    def identity(self) -> Identity:
        """Name, size and change stamp of every file, and of the picture files by folder where there are any."""
        found = [(file.info.relative, file.info.num_bytes, file.info.stamp) for file in self.files]
        return found if self.places is None else found + self.places.identity()

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
            yield from in_batches(self._read(opened, file, part))

    def _read(self, opened: pq.ParquetFile, file: _File, part: Slice) -> Iterator[RawRecord]:
        group_start = 0
        for group, group_end in enumerate(file.group_ends):
            if group_start < part.stop and group_end > part.start:
                yield from self._read_group(opened, file, group, group_start, part)
            group_start = group_end

    def _read_group(
        self, opened: pq.ParquetFile, file: _File, group: int, row: int, part: Slice
    ) -> Iterator[RawRecord]:
        names = self.columns.names()
        batch_rows = _rows_at_once(opened.metadata.row_group(group), names)
        for batch in opened.iter_batches(batch_rows, row_groups=[group], columns=names, use_threads=False):
            start, stop = max(part.start - row, 0), min(part.stop - row, batch.num_rows)
            if start < stop:
                rows = batch.slice(start, stop - start)
                yield from to_records(rows, self.columns, file.info.relative, row + start, partial(self._folder, file))
            row += batch.num_rows
            if row >= part.stop:
                return

    def _folder(self, file: _File) -> PictureFolder:
        assert self.places is not None
        return self.places.folder(file.info)


def _rows_at_once(group: pq.RowGroupMetaData, names: list[str]) -> int:
    """Rows of a row group that are decoded together, so that their columns take little memory."""
    largest = 0
    for number in range(group.num_columns):
        column = group.column(number)
        path = column.path_in_schema
        if column.has_dictionary_page and any(path == name or path.startswith(f"{name}.") for name in names):
            largest = max(largest, column.total_uncompressed_size)
    per_row = group.total_byte_size // max(1, group.num_rows)
    # A value of a dictionary is stored once and may stand in every row.
    return max(1, min(BATCH_RECORDS, BATCH_BYTES // max(1, per_row), _REPEATED_BYTES // max(1, largest)))


def _first_values(file: storage.FileInfo, column: str) -> list[Any]:
    with reading(file.path), open_parquet(file.path) as opened:
        batches = opened.iter_batches(_SAMPLED_ROWS, columns=[column], use_threads=False)
        return next((to_values(batch.column(column)) for batch in batches), [])


# One command opens its source several times; the stamp in `file` tells a changed file.
@lru_cache(maxsize=1_024)
def _read_footer(file: storage.FileInfo) -> tuple[pa.Schema, tuple[int, ...]]:
    with open_parquet(file.path) as opened:
        metadata = opened.metadata
        ends, total = [], 0
        for group in range(metadata.num_row_groups):
            total += metadata.row_group(group).num_rows
            ends.append(total)
        return opened.schema_arrow, tuple(ends)
