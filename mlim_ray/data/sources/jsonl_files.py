"""JSON Lines files as a source: an object a line, and pictures in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.rejection import Problem
from mlim_ray.data.schema import Columns, guess_columns
from mlim_ray.data.sources.json_objects import Kinds, parse_object
from mlim_ray.data.sources.lines import Lines, open_unzipped, skip_mark
from mlim_ray.data.sources.listing import Identity, Listing
from mlim_ray.data.sources.pictures import refuse_urls
from mlim_ray.data.sources.rows import Draft, malformed, plain, to_record, with_pictures
from mlim_ray.data.sources.source import SLICE_RECORDS, Slice, in_batches
from mlim_ray.data.sources.tables import PicturePlaces, RowFile, identity_of, opened_at, slices_of

_SAMPLED_ROWS = 100
_KEPT_ROWS = 10


@dataclass(frozen=True)
class JsonlSource:
    """JSON Lines files (UTF-8), in the order of their paths. A key that an object lacks is null."""

    name: str
    columns: Columns
    column_types: dict[str, str]
    """of the first objects of each file"""
    files: tuple[RowFile, ...]
    places: PicturePlaces
    format: str = "JSON Lines"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, files: list[storage.FileInfo], listing: Listing, config: PrepareConfig) -> JsonlSource:
        """Find the lines of `files`, reading each once.

        Raises ValueError that names the file for one without any object at its beginning, where no column
        fits a role, and where the pictures are URLs.
        """
        scanned = [_scan(file) for file in files]
        kinds = Kinds()
        for file, (found, of_file, _) in zip(files, scanned, strict=True):
            kinds.update(of_file)
            if found.num_rows and not of_file.num_objects:
                raise ValueError(
                    f"none of the first lines of {file.path} is a JSON object; expected JSON Lines, one object a "
                    f"line (`jq -c .[]` makes them of an array)"
                )
        if not kinds.num_objects:
            raise ValueError(f"{name} holds no records; expected at least one JSON object on a line of its own")
        schema = kinds.schema()
        columns = guess_columns(schema, config, name)
        refuse_urls(name, columns.image, [row.get(columns.image) for row in scanned[0][2]])
        return cls(
            name,
            columns,
            {field.name: str(field.type) for field in schema},
            tuple(found for found, _, _ in scanned),
            PicturePlaces.of(files, listing, config),
        )

    @property
    def identity(self) -> Identity:
        """Name, size and change stamp of every file, and of the picture files by folder."""
        return identity_of(self.files, self.places)

    def slices(self) -> list[Slice]:
        """Runs of lines."""
        return slices_of(self.files)

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice and their pictures."""
        file = self.files[part.file]
        with opened_at(file, part.start) as (opened, skipped):
            lines = islice((line for line in Lines(opened) if not _is_blank(line)), skipped, None)
            drafts = self._drafts(file.info.relative, zip(range(part.start, part.stop), lines, strict=False))
            yield from in_batches(with_pictures(drafts, self.places.folder(file.info)))

    def _drafts(self, source: str, rows: Iterator[tuple[int, bytes | None]]) -> Iterator[Draft]:
        names = self.columns.names()
        for row, line in rows:
            values = parse_object(line)
            if isinstance(values, Problem):
                yield malformed(source, row, values.detail), None
            elif values.keys().isdisjoint(names):
                yield malformed(source, row, f"an object without any of {', '.join(names)}"), None
            else:
                record = to_record(self.columns, source, row, values, f"{source}:{row}")
                try:
                    path = plain(self.columns.image, values)
                except TypeError as error:
                    yield malformed(source, row, str(error)), None
                else:
                    yield record, str(path) if isinstance(path, int) else path


def _is_blank(line: bytes | None) -> bool:
    return line is not None and not line.strip()


# One command opens its source several times; the stamp in `info` tells a changed file.
@lru_cache(maxsize=1_024)
def _scan(info: storage.FileInfo) -> tuple[RowFile, Kinds, tuple[dict[str, str], ...]]:
    """The lines of a file, the keys of the objects among its first, and a few of them without long texts."""
    with open_unzipped(info.path) as (opened, is_zipped):
        skip_mark(opened)
        start = opened.tell()
        lines = Lines(opened)
        offsets, num_rows = [start], 0
        kinds = Kinds()
        kept: list[dict[str, str]] = []
        for line in lines:
            if _is_blank(line):
                continue
            num_rows += 1
            found = parse_object(line) if num_rows <= _SAMPLED_ROWS else None
            if isinstance(found, dict):
                kinds.add(found)
                if len(kept) < _KEPT_ROWS:
                    kept.append({name: value[:200] for name, value in found.items() if isinstance(value, str)})
            if num_rows % SLICE_RECORDS == 0:
                offsets.append(start + lines.num_bytes)
    return RowFile(info, is_zipped, tuple(offsets), num_rows), kinds, tuple(kept)
