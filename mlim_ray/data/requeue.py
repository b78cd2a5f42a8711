"""Rejected records that come back repaired, as a source: rows of the quarantine, or any records with their keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated, Manifest
from mlim_ray.data.parquet import open_parquet, reading
from mlim_ray.data.quarantine import SCHEMA, Place, places_of, read_quarantine
from mlim_ray.data.rejection import Problem, Stage
from mlim_ray.data.schema import Columns, is_text_type
from mlim_ray.data.sources import Slice, Source, open_source
from mlim_ray.data.sources.arrow_rows import to_values
from mlim_ray.data.sources.json_objects import parse_object
from mlim_ray.data.sources.rows import malformed

_ROLES = ("key", "original_key", "image", "text", "label", "group", "split", "attributes")
_BATCH_RECORDS = 64


@dataclass(frozen=True)
class Repaired:
    """A source of repaired records, and which rejected ones they are."""

    source: Source
    places: frozenset[Place]


def open_repaired(out: str, manifest: Manifest, repaired: str | None, config: PrepareConfig) -> Repaired:
    """Repaired records of the set in `out`.

    A Parquet file or folder with the columns `source` and `row` is taken as rows of the quarantine, edited; any other
    source is matched by key. None takes what the quarantine itself keeps, to be judged by another config.

    Raises ValueError if a record is none of the quarantine's or comes twice, if nothing was kept, and where its split
    would be decided in another way than the set's.
    """
    rows = list(_quarantined(out, manifest))
    if repaired is None:
        if not manifest.keeps_rejected:
            raise ValueError(
                f"the quarantine of {out} holds no original bytes: name a source of repaired records, or prepare "
                f"with --keep-rejected"
            )
        names = [storage.join(out, file.path) for file in manifest.quarantine]
        files = tuple(storage.list_files(name)[0] for name in names)
        source = QuarantineRows(out, files, manifest.columns, manifest.attributes, frozenset({Stage.DEDUPLICATE.value}))
        return Repaired(source, _checked(source.read_places(), {place for place, _ in rows}, out, out))
    files = _quarantine_form(repaired)
    if files:
        source = QuarantineRows(repaired, files, manifest.columns, manifest.attributes)
        return Repaired(source, _checked(source.read_places(), {place for place, _ in rows}, repaired, out))
    counts = Counter(key for _, key in rows)
    by_key = {key: place for place, key in rows if key is not None and counts[key] == 1}
    inner = open_source(repaired, config)
    if (inner.columns.split is None) == ("split" in manifest.columns):
        found, has = ("no", "one") if inner.columns.split is None else ("a", "none")
        raise ValueError(
            f"{repaired} has {found} split column and the source of {out} had {has}, so a repaired record would get "
            f"its split in another way than its like; repair rows of the quarantine instead"
        )
    keyed = RecordsByKey(inner, by_key, out)
    return Repaired(keyed, _checked(keyed.read_places(), set(by_key.values()), repaired, out))


@dataclass(frozen=True)
class QuarantineRows:
    """Edited rows of a quarantine; each stands for the record at its `source` and `row`."""

    name: str
    files: tuple[storage.FileInfo, ...]
    roles: dict[str, str]
    """of the set: whether it has labels, groups and splits"""
    attributes: tuple[str, ...]
    """of the set"""
    skipped_stages: frozenset[str] = frozenset()
    format: str = "quarantine"
    generated: Generated | None = None

    @property
    def columns(self) -> Columns:
        """As the set's own, by role."""
        label, group, split = (role if role in self.roles else None for role in ("label", "group", "split"))
        return Columns("image", "text", "key", label, group, split, attributes=self.attributes)

    @property
    def column_types(self) -> dict[str, str]:
        """Columns of a quarantine."""
        return {column.name: str(column.type) for column in SCHEMA}

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and change stamp of every file."""
        return [(file.relative, file.num_bytes, file.stamp) for file in self.files]

    def slices(self) -> list[Slice]:
        """Row groups."""
        found = []
        for number, file in enumerate(self.files):
            with reading(file.path), open_parquet(file.path) as opened:
                start = 0
                for group in range(opened.num_row_groups):
                    stop = start + len(
                        self._chosen(opened.read_row_group(group, columns=self._stage(opened), use_threads=False))
                    )
                    if stop > start:
                        found.append(Slice(number, start, stop))
                    start = stop
        return found

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice, which counts chosen rows."""
        file = self.files[part.file]
        row = 0
        with reading(file.path), open_parquet(file.path) as opened:
            names = [name for name in (*_ROLES, "source", "row", "stage") if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(_BATCH_RECORDS, columns=names, use_threads=False):
                table = self._chosen(pa.Table.from_batches([batch]))
                start, stop = max(part.start - row, 0), min(part.stop - row, len(table))
                if start < stop:
                    yield self._records(table.slice(start, stop - start))
                row += len(table)
                if row >= part.stop:
                    return

    def read_places(self) -> Iterator[Place]:
        """Which records the rows are about."""
        for file in self.files:
            with reading(file.path), open_parquet(file.path) as opened:
                for group in range(opened.num_row_groups):
                    columns = ["source", "row", *self._stage(opened)]
                    yield from places_of(self._chosen(opened.read_row_group(group, columns=columns, use_threads=False)))

    def _stage(self, opened: Any) -> list[str]:
        return ["stage"] if "stage" in opened.schema_arrow.names else []

    def _chosen(self, table: pa.Table) -> pa.Table:
        if not self.skipped_stages:
            return table
        return table.filter(pa.array([stage not in self.skipped_stages for stage in table["stage"].to_pylist()]))

    def _records(self, table: pa.Table) -> list[RawRecord]:
        nothing = [None] * len(table)
        columns = {
            name: to_values(table[name].combine_chunks()) if name in table.column_names else nothing
            for name in (*_ROLES, "source", "row")
        }
        # A mended key is written where a person looks first; the original may be no text at all.
        keys = [
            original if key is None else key
            for key, original in zip(columns["key"], columns["original_key"], strict=True)
        ]
        rows = zip(
            *(columns["source"], columns["row"], keys, columns["image"]),
            *(columns[name] for name in ("text", "label", "group", "split", "attributes")),
            strict=True,
        )
        return [self._record(_as_text(source), row, values, attributes) for source, row, *values, attributes in rows]

    def _record(self, source: str, row: int, values: list[Any], attributes: Any) -> RawRecord:
        if not self.attributes or attributes is None:
            return RawRecord(source, row, *values)
        found = parse_object(attributes.encode() if isinstance(attributes, str) else attributes)
        if isinstance(found, Problem):
            return malformed(source, row, f"attributes: {found.detail}")
        return RawRecord(source, row, *values, attributes={name: found.get(name) for name in self.attributes})


@dataclass(frozen=True)
class RecordsByKey:
    """Any source; each of its records stands for the rejected one with its key."""

    inner: Source
    places: dict[str, Place]
    """key to place, for keys that the quarantine holds once"""
    out: str

    @property
    def name(self) -> str:
        """The source as it was given."""
        return self.inner.name

    @property
    def format(self) -> str:
        """What kind of source it is."""
        return self.inner.format

    @property
    def columns(self) -> Columns:
        """The column of each role."""
        return self.inner.columns

    @property
    def column_types(self) -> dict[str, str]:
        """All columns and their types."""
        return self.inner.column_types

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and change stamp of every file."""
        return self.inner.identity

    @property
    def generated(self) -> Generated | None:
        """None: nobody repairs what is generated."""
        return None

    def slices(self) -> list[Slice]:
        """The source's own."""
        return self.inner.slices()

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice under the places of the rejected ones."""
        for records in self.inner.read(part):
            placed = [(record, self._place(record)) for record in records]
            yield [replace(record, source=source, row=row) for record, (source, row) in placed]

    def read_places(self) -> Iterator[Place]:
        """Which records these are. Raises ValueError for a key that the quarantine does not hold, or more than once."""
        for part in self.slices():
            for records in self.inner.read(part):
                yield from map(self._place, records)

    def _place(self, record: RawRecord) -> Place:
        key = record.key.decode(errors="replace") if isinstance(record.key, bytes) else str(record.key)
        if key not in self.places:
            raise ValueError(
                f"row {record.row} of {record.source} has the key {key!r}, which the quarantine of {self.out} does not "
                f"hold exactly once; repair its own rows instead: they are told apart by their columns source and row"
            )
        return self.places[key]


def _quarantined(out: str, manifest: Manifest) -> Iterator[tuple[Place, str | None]]:
    for table in read_quarantine(storage.join(out, file.path) for file in manifest.quarantine):
        yield from zip(places_of(table), table["key"].to_pylist(), strict=True)


def _quarantine_form(repaired: str) -> tuple[storage.FileInfo, ...]:
    """The Parquet files at `repaired` if they tell source and row, else none."""
    files = [file for file in storage.list_files(storage.absolute(repaired)) if file.relative.endswith(".parquet")]
    for file in files:
        with reading(file.path), open_parquet(file.path) as opened:
            schema = opened.schema_arrow
        if not {"source", "row"} <= set(schema.names):
            return ()
        if not (is_text_type(schema.field("source").type) and pa.types.is_integer(schema.field("row").type)):
            raise ValueError(
                f"{file.path}: columns source and row are no string and integer; keep the quarantine's types"
            )
    return tuple(files)


def _checked(places: Iterable[Place], rejected: set[Place], name: str, out: str) -> frozenset[Place]:
    seen: set[Place] = set()
    for place in places:
        source, row = place
        if place not in rejected:
            raise ValueError(f"{name} has row {row} of {source}, which is not in the quarantine of {out}; leave it out")
        if place in seen:
            raise ValueError(f"{name} has row {row} of {source} twice; expected each record once")
        seen.add(place)
    if not seen:
        raise ValueError(f"{name} holds no rejected record; nothing to prepare")
    return frozenset(seen)


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
