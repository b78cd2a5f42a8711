"""CSV and TSV files as a source: a table of texts, and pictures in a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import BinaryIO

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.rejection import Problem, shorten
from mlim_ray.data.schema import Columns, guess_columns
from mlim_ray.data.sources.forms import BYTE_ORDER_MARK, DELIMITERS
from mlim_ray.data.sources.lines import MAX_LINE_BYTES, Lines, open_unzipped, skip_mark
from mlim_ray.data.sources.listing import Identity, Listing
from mlim_ray.data.sources.pictures import refuse_urls
from mlim_ray.data.sources.rows import Draft, malformed, to_record, with_pictures
from mlim_ray.data.sources.source import SLICE_RECORDS, Slice, in_batches
from mlim_ray.data.sources.tables import PicturePlaces, RowFile, identity_of, opened_at, slices_of
from mlim_ray.data.text import decode_utf8

_SAMPLED_ROWS = 10
_SAMPLED_CHARACTERS = 200


@dataclass(frozen=True)
class CsvSource:
    """CSV or TSV files (UTF-8, with a header line) of the same columns, in the order of their paths."""

    name: str
    columns: Columns
    header: tuple[str, ...]
    files: tuple[RowFile, ...]
    delimiters: tuple[str, ...]
    """of each file"""
    places: PicturePlaces
    format: str = "CSV"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, files: list[storage.FileInfo], listing: Listing, config: PrepareConfig) -> CsvSource:
        """Find the rows of `files`, reading each once.

        Raises ValueError that names the file for one without a header or with another header than the first
        one's, where no column fits a role, and where the pictures are URLs.
        """
        scanned = [_scan(file) for file in files]
        header = scanned[0].header
        for file, other in zip(files, scanned, strict=True):
            if other.header != header:
                raise ValueError(
                    f"{file.path} has the columns {', '.join(other.header)}; expected those of {files[0].path}: "
                    f"{', '.join(header)}"
                )
        schema = pa.schema([(column, pa.string()) for column in header])
        columns = guess_columns(schema, config, name)
        place = header.index(columns.image)
        refuse_urls(name, columns.image, [row[place] for row in scanned[0].sample if len(row) == len(header)])
        return cls(
            name,
            columns,
            header,
            tuple(found.file for found in scanned),
            tuple(found.delimiter for found in scanned),
            PicturePlaces.of(files, listing, config),
        )

    @property
    def column_types(self) -> dict[str, str]:
        """Columns of the table; everything in it is text."""
        return dict.fromkeys(self.header, "string")

    @property
    def identity(self) -> Identity:
        """Name, size and change stamp of every table, and of the picture files by folder."""
        return identity_of(self.files, self.places)

    def slices(self) -> list[Slice]:
        """Runs of rows."""
        return slices_of(self.files)

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice and their pictures."""
        file = self.files[part.file]
        with opened_at(file, part.start) as (opened, skipped):
            rows = islice(_Rows(opened, file.info.path, self.delimiters[part.file]), skipped, None)
            drafts = self._drafts(file.info.relative, zip(range(part.start, part.stop), rows, strict=False))
            yield from in_batches(with_pictures(drafts, self.places.folder(file.info)))

    def _drafts(self, source: str, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Draft]:
        place = {name: self.header.index(name) for name in self.columns.names()}
        for row, fields in rows:
            if len(fields) != len(self.header):
                yield malformed(source, row, f"{len(fields)} fields; expected {len(self.header)}"), None
                continue
            values = {name: _to_bytes(fields[i]) for name, i in place.items()}
            key = f"{source}:{row}".encode()
            yield to_record(self.columns, source, row, values, key), values[self.columns.image]


class _Rows:
    """Records of an open table."""

    def __init__(self, opened: BinaryIO, path: str, delimiter: str) -> None:
        # Python's limit of 128 KiB a field is for the whole process; a long text is cut later, and counted.
        csv.field_size_limit(MAX_LINE_BYTES)
        self.lines = Lines(opened)
        self._path = path
        self._taken: list[str] = []
        """lines of the record that is read"""
        self._reader = csv.reader(self._decoded(), delimiter=delimiter)

    def __iter__(self) -> Iterator[list[str]]:
        lines: list[str] = []
        try:
            for fields in self._reader:
                lines, self._taken = self._taken, []
                # The reader gives blank lines as empty rows; they are no records.
                if fields:
                    yield fields
        except csv.Error as error:
            detail = "lines end with a carriage return alone" if "new-line" in str(error) else error
            raise ValueError(f"{self._path} is damaged or no CSV file: {detail}") from error
        # The reader takes the rest of the file for one field, and its rows would be lost.
        if len(lines) > 1 and sum(line.count('"') for line in lines) % 2:
            raise ValueError(
                f"{self._path} is damaged: the quote that opens in {shorten(lines[0].strip(), 50)!r}, line "
                f"{self._reader.line_num - len(lines) + 1}, is never closed; close it, or double it where it is meant"
            )

    def _decoded(self) -> Iterator[str]:
        for line in self.lines:
            if line is None:
                raise csv.Error(f"a line of more than {MAX_LINE_BYTES} bytes")
            self._taken.append(line.decode("utf-8", "surrogateescape"))
            yield self._taken[-1]


@dataclass(frozen=True)
class _Scanned:
    header: tuple[str, ...]
    delimiter: str
    file: RowFile
    sample: tuple[list[str], ...]


# One command opens its source several times; the stamp in `info` tells a changed file.
@lru_cache(maxsize=1_024)
def _scan(info: storage.FileInfo) -> _Scanned:
    with open_unzipped(info.path) as (opened, is_zipped):
        first = opened.readline(MAX_LINE_BYTES).removeprefix(BYTE_ORDER_MARK)
        delimiter = "\t" if info.path.lower().endswith((".tsv", ".tsv.gz")) else _delimiter(first)
        opened.seek(0)
        skip_mark(opened)
        start = opened.tell()
        rows = _Rows(opened, info.path, delimiter)
        records = iter(rows)
        header = next(records, None)
        if header is None:
            raise ValueError(f"{info.path} is empty; expected a header line with the names of the columns")
        if any("\0" in name or isinstance(decode_utf8(name), Problem) for name in header):
            raise ValueError(
                f"{info.path} is no UTF-8: the names of its columns cannot be read; convert it, for example with "
                f"`iconv -f LATIN1 -t UTF-8`, or from UTF-16"
            )
        offsets, num_rows = [start + rows.lines.num_bytes], 0
        sample: list[list[str]] = []
        for fields in records:
            num_rows += 1
            if num_rows <= _SAMPLED_ROWS:
                sample.append([field[:_SAMPLED_CHARACTERS] for field in fields])
            if num_rows % SLICE_RECORDS == 0:
                offsets.append(start + rows.lines.num_bytes)
    file = RowFile(info, is_zipped, tuple(offsets), num_rows)
    return _Scanned(tuple(header), delimiter, file, tuple(sample))


def _delimiter(header: bytes) -> str:
    text = header.decode("utf-8", "surrogateescape")
    return max(DELIMITERS, key=text.count)


def _to_bytes(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape")
