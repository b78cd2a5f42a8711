"""CSV and TSV files as a source: a table of texts, and pictures in a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.manifest import Generated
from mlim_ray.data.rejection import Problem, Reason
from mlim_ray.data.schema import Columns, guess_columns
from mlim_ray.data.sources.pictures import PictureFolder
from mlim_ray.data.sources.source import SLICE_RECORDS, Slice

_DELIMITERS = ",\t;|"
_BATCH_RECORDS = 64


@dataclass(frozen=True)
class _File:
    info: storage.FileInfo
    delimiter: str
    slice_offsets: tuple[int, ...]
    """byte at which each run of SLICE_RECORDS rows begins"""
    num_rows: int


@dataclass(frozen=True)
class CsvSource:
    """CSV or TSV files (UTF-8, with a header line) of the same columns, in the order of their paths."""

    name: str
    columns: Columns
    header: tuple[str, ...]
    files: tuple[_File, ...]
    image_folder: str | None
    format: str = "CSV"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, files: list[storage.FileInfo], config: PrepareConfig) -> CsvSource:
        """Find the rows of `files`, reading each once.

        Raises ValueError that names the file for one without a header or with another header than the first
        one's, and where no column fits a role.
        """
        scanned = [_scan(file) for file in files]
        header = scanned[0][0]
        for file, (other, _) in zip(files, scanned, strict=True):
            if other != header:
                raise ValueError(
                    f"{file.path} has the columns {', '.join(other)}; expected those of {files[0].path}: "
                    f"{', '.join(header)}"
                )
        schema = pa.schema([(column, pa.string()) for column in header])
        folder = None if config.image_folder is None else storage.absolute(config.image_folder)
        columns = guess_columns(schema, config, name)
        return cls(name, columns, tuple(header), tuple(file for _, file in scanned), folder)

    @property
    def column_types(self) -> dict[str, str]:
        """Columns of the table; everything in it is text."""
        return dict.fromkeys(self.header, "string")

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and change stamp of every table and of every picture file."""
        found = [(file.info.relative, file.info.num_bytes, file.info.stamp) for file in self.files]
        for root in sorted({self._folder(file) for file in self.files}):
            found += PictureFolder(root).identity()
        return found

    def slices(self) -> list[Slice]:
        """Runs of rows."""
        return [
            Slice(number, start, min(start + SLICE_RECORDS, file.num_rows))
            for number, file in enumerate(self.files)
            for start in range(0, file.num_rows, SLICE_RECORDS)
        ]

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice and their pictures."""
        file = self.files[part.file]
        folder = PictureFolder(self._folder(file))
        batch: list[tuple[int, list[str]]] = []
        with storage.open_read(file.info.path) as opened:
            known, skipped = divmod(part.start, SLICE_RECORDS)
            opened.seek(file.slice_offsets[known])
            rows = islice(_Rows(opened, file), skipped, None)
            for row, fields in zip(range(part.start, part.stop), rows, strict=False):
                batch.append((row, fields))
                if len(batch) == _BATCH_RECORDS:
                    yield self._records(file, folder, batch)
                    batch = []
        if batch:
            yield self._records(file, folder, batch)

    def _records(self, file: _File, folder: PictureFolder, rows: list[tuple[int, list[str]]]) -> list[RawRecord]:
        place = {role: self.header.index(name) for role, name in self.columns.by_role().items()}
        width = len(self.header)
        whole = [fields if len(fields) == width else None for _, fields in rows]
        paths = [None if fields is None else _to_bytes(fields[place["image"]]) for fields in whole]
        images = iter(folder.read_all([path for path in paths if path is not None]))
        source = file.info.relative
        records = []
        for (row, given), fields in zip(rows, whole, strict=True):
            if fields is None:
                problem = Problem(Reason.MALFORMED_ROW, f"{len(given)} fields; expected {width}")
                records.append(RawRecord(source, row, None, None, None, problem=problem))
                continue
            values = {role: _to_bytes(fields[i]) for role, i in place.items()}
            records.append(
                RawRecord(
                    source,
                    row,
                    values.get("key", f"{source}:{row}".encode()),
                    next(images),
                    values["text"],
                    # A table has no other way to leave a label or group out.
                    values.get("label") or None,
                    values.get("group") or None,
                    values.get("split"),
                )
            )
        return records

    def _folder(self, file: _File) -> str:
        return self.image_folder or storage.parent(file.info.path)


class _Rows:
    """Records of an open table, with the byte that each one ends at."""

    def __init__(self, opened: Iterator[bytes], file: _File) -> None:
        # Python's limit of 128 KiB a field is for the whole process; a long text is cut later, and counted.
        csv.field_size_limit(MAX_ENCODED_BYTES)
        self.num_bytes = 0
        self._lines = opened
        self._path = file.info.path
        self._reader = csv.reader(self._decoded(), delimiter=file.delimiter)

    def __iter__(self) -> Iterator[list[str]]:
        try:
            # The reader gives blank lines as empty rows; they are no records.
            yield from (fields for fields in self._reader if fields)
        except csv.Error as error:
            raise ValueError(f"{self._path} is damaged or no CSV file: {error}") from error

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            self.num_bytes += len(line)
            yield line.decode("utf-8", "surrogateescape")


def _scan(info: storage.FileInfo) -> tuple[list[str], _File]:
    with storage.open_read(info.path) as opened:
        first = opened.readline()
        delimiter = "\t" if info.path.lower().endswith(".tsv") else _delimiter(first)
        opened.seek(3 if first.startswith(b"\xef\xbb\xbf") else 0)
        start = opened.tell()
        rows = _Rows(opened, _File(info, delimiter, (), 0))
        records = iter(rows)
        header = next(records, None)
        if header is None:
            raise ValueError(f"{info.path} is empty; expected a header line with the names of the columns")
        offsets, num_rows = [start + rows.num_bytes], 0
        for _ in records:
            num_rows += 1
            if num_rows % SLICE_RECORDS == 0:
                offsets.append(start + rows.num_bytes)
    return header, _File(info, delimiter, tuple(offsets), num_rows)


def _delimiter(header: bytes) -> str:
    text = header.decode("utf-8", "surrogateescape")
    return max(_DELIMITERS, key=text.count)


def _to_bytes(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape")
