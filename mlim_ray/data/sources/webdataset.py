"""WebDataset tar shards as a source. No pickle in one is ever read, and nothing is unpacked to disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.manifest import Generated
from mlim_ray.data.rejection import Problem, Reason
from mlim_ray.data.schema import Columns, Role, guess_columns, text_template
from mlim_ray.data.sources.forms import PICTURE_SUFFIXES
from mlim_ray.data.sources.json_objects import Kinds, parse_object
from mlim_ray.data.sources.lines import MAX_LINE_BYTES, cut_text, open_unzipped
from mlim_ray.data.sources.listing import Identity
from mlim_ray.data.sources.rows import malformed, to_record
from mlim_ray.data.sources.samples import Sample, read_samples
from mlim_ray.data.sources.source import SLICE_RECORDS, ZIPPED_SLICES, Slice, cut, in_batches

KEY = "__key__"
"""column of a sample's name inside its shard"""
IMAGE = "image"
"""column of the first member of a sample that is a picture by its extension"""
_JSON = "json"
_TEXTS = ("txt", "text", "caption")
_LABEL = "cls"
_SAMPLED = 100
_SCAN_THREADS = 8


@dataclass(frozen=True)
class _Shard:
    """About 32 bytes for every SLICE_RECORDS samples."""

    info: storage.FileInfo
    is_zipped: bool
    slice_offsets: tuple[int, ...]
    """byte at which each run of SLICE_RECORDS samples begins, unzipped"""
    num_samples: int


@dataclass(frozen=True)
class WebDatasetSource:
    """Tar shards in the order of their paths, and the samples of each in the order of the archive.

    The key of a record is `SHARD:NAME`, because names are often unique in their shard only; `--key-column
    __key__` takes the name alone. Columns are the extensions of members, and the keys of a `json` member.
    """

    name: str
    columns: Columns
    column_types: dict[str, str]
    shards: tuple[_Shard, ...]
    from_json: frozenset[str]
    """columns that are keys of the `json` member"""
    format: str = "WebDataset"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, files: list[storage.FileInfo], config: PrepareConfig) -> WebDatasetSource:
        """Find the samples of `files`, going over the headers of each once.

        Raises ValueError that names the file for a damaged one, where no sample has both a picture and a text,
        and where several members could be the picture.
        """
        with ThreadPoolExecutor(_SCAN_THREADS) as pool:
            scanned = list(pool.map(_scan, files))
        found = list(dict.fromkeys(extensions for _, beginnings, _ in scanned for extensions in beginnings))
        if not found:
            raise ValueError(
                f"{name} holds no samples; expected members such as 0001.jpg and 0001.txt in its tar files"
            )
        kinds = Kinds()
        for _, _, of_shard in scanned:
            kinds.update(of_shard)
        members = _member_schema(name, found, config)
        taken = {*members.names, _JSON}
        fields = [field for field in kinds.schema() if field.name not in taken]
        schema = pa.schema([*members, *fields])
        # A name is the key of its record; nothing else unless it is asked for.
        guessable = schema if KEY in _named(config) else schema.remove(schema.get_field_index(KEY))
        columns = guess_columns(guessable, _with_members(config, members.names), name)
        if config.key_column is None:
            columns = replace(columns, key=None)
        from_json = frozenset(field.name for field in fields)
        places = {_JSON if column in from_json else column for column in columns.text_columns}
        if not any(_picture_of(extensions, columns.image) and places & {KEY, *extensions} for extensions in found):
            raise ValueError(
                f"no sample at the beginning of {name} has both a picture and a text; expected members of one name "
                f"beside each other, such as 0001.jpg and 0001.txt: write it sorted by name"
            )
        types = {field.name: str(field.type) for field in schema}
        return cls(name, columns, types, tuple(shard for shard, _, _ in scanned), from_json)

    @property
    def identity(self) -> Identity:
        """Name, size and change stamp of every shard."""
        return [(shard.info.relative, shard.info.num_bytes, shard.info.stamp) for shard in self.shards]

    def slices(self) -> list[Slice]:
        """Runs of samples."""
        return [
            part
            for number, shard in enumerate(self.shards)
            for part in (
                cut(number, 0, shard.num_samples, ZIPPED_SLICES)
                if shard.is_zipped
                else [
                    Slice(number, start, min(start + SLICE_RECORDS, shard.num_samples))
                    for start in range(0, shard.num_samples, SLICE_RECORDS)
                ]
            )
        ]

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice; of the shard no other members are read."""
        shard = self.shards[part.file]
        known, skipped = divmod(part.start, SLICE_RECORDS)
        size = None if shard.is_zipped else shard.info.num_bytes
        names = set(self.columns.names()) - self.from_json
        if not self.from_json.isdisjoint(self.columns.names()):
            names.add(_JSON)
        last_with_picture = -1

        def wanted(number: int, extension: str, num_bytes: int) -> int:
            nonlocal last_with_picture
            if not skipped <= number < skipped + part.stop - part.start:
                return 0
            if _picture_of([extension], self.columns.image):
                is_first, last_with_picture = number > last_with_picture, number
                return num_bytes if is_first and num_bytes <= MAX_ENCODED_BYTES else 0
            return min(num_bytes, MAX_LINE_BYTES + 1) if extension in names else 0

        with open_unzipped(shard.info.path) as (opened, _):
            samples = read_samples(opened, shard.info.path, size, shard.slice_offsets[known], wanted)
            rows = zip(range(part.start, part.stop), islice(samples, skipped, None), strict=False)
            yield from in_batches(self._record(shard.info.relative, row, sample) for row, sample in rows)

    def _record(self, source: str, row: int, sample: Sample) -> RawRecord:
        if sample.problem is not None:
            return RawRecord(source, row, None, None, None, problem=sample.problem)
        values: dict[str, Any] = {KEY: sample.key}
        names = set(self.columns.names()) - {self.columns.image}
        for name in names.intersection(sample.members) - self.from_json:
            values[name] = cut_text(sample.members[name].read).strip()
        if _JSON in sample.members and not self.from_json.isdisjoint(names):
            found = _read_json(sample)
            if isinstance(found, Problem):
                return malformed(source, row, f"{_JSON}: {found.detail}")
            values |= {name: found.get(name) for name in self.from_json & names}
        record = to_record(self.columns, source, row, values, f"{source}:{sample.key}")
        return record if record.problem is not None else replace(record, image=_picture(sample, self.columns.image))


def _member_schema(source: str, found: list[tuple[str, ...]], config: PrepareConfig) -> pa.Schema:
    """The columns that are members: the name, the picture, and each extension that is a picture or a text.

    `found` holds the extensions of some samples. All others, pickles among them, are no columns.
    """
    if config.image_column is None:
        for extensions in found:
            several = [extension for extension in extensions if _is_picture(extension)]
            if len(several) > 1:
                raise ValueError(
                    f"a sample of {source} has several pictures ({', '.join(several)}); name the one to take with "
                    f"--image-column EXTENSION"
                )
        if not any(_picture_of(extensions, IMAGE) for extensions in found):
            shown = ", ".join(dict.fromkeys(extension for extensions in found for extension in extensions))[:100]
            raise ValueError(
                f"no sample at the beginning of {source} has a picture (0001.jpg, 0001.png ...), only members "
                f"{shown}; name one that is with --image-column EXTENSION"
            )
    columns = {KEY: pa.string(), IMAGE: pa.binary()}
    for extension in (extension for extensions in found for extension in extensions):
        last = extension.rpartition(".")[2]
        if f".{last}" in PICTURE_SUFFIXES:
            columns.setdefault(extension, pa.binary())
        elif last in (*_TEXTS, _LABEL):
            columns.setdefault(extension, pa.string())
    return pa.schema(list(columns.items()))


def _with_members(config: PrepareConfig, names: list[str]) -> PrepareConfig:
    """`config` with the roles that members have by their extension, where it names no other column."""
    text = next((name for name in _TEXTS if name in names and config.text is None), None)
    chosen = {"image_column": IMAGE, "text_column": text, "label_column": _LABEL if _LABEL in names else None}
    return config.model_copy(update={role: name for role, name in chosen.items() if getattr(config, role) is None})


def _named(config: PrepareConfig) -> set[str | None]:
    template = text_template(config)
    columns = {getattr(config, f"{role.value}_column") for role in Role}.union(config.attribute_columns)
    return columns if template is None else columns.union(template.columns)


def _is_picture(extension: str) -> bool:
    # A compound extension (`seg.png`) is one only where it is named.
    return f".{extension}" in PICTURE_SUFFIXES


def _picture_of(extensions: Iterable[str], column: str) -> str | None:
    """The extension of a sample's picture."""
    return next((found for found in extensions if found == column or (column == IMAGE and _is_picture(found))), None)


def _picture(sample: Sample, column: str) -> bytes | Problem:
    extension = _picture_of(sample.members, column)
    if extension is None:
        return Problem(Reason.MISSING_PICTURE, "no member is a picture" if column == IMAGE else f"no member {column}")
    content = sample.members[extension]
    if content.num_bytes > MAX_ENCODED_BYTES:
        return Problem(Reason.TOO_MANY_BYTES, f"{extension} has {content.num_bytes} bytes; at most {MAX_ENCODED_BYTES}")
    return content.read


def _read_json(sample: Sample) -> dict[str, Any] | Problem:
    content = sample.members[_JSON]
    return parse_object(content.read if content.num_bytes <= MAX_LINE_BYTES else None)


# One command opens its source several times; the stamp in `info` tells a changed file.
@lru_cache(maxsize=4_096)
def _scan(info: storage.FileInfo) -> tuple[_Shard, tuple[tuple[str, ...], ...], Kinds]:
    """Where the samples begin, the extensions that the first ones have, and the keys of their JSON."""
    with open_unzipped(info.path) as (opened, is_zipped):
        offsets: list[int] = []
        beginnings: dict[tuple[str, ...], None] = {}
        kinds = Kinds()
        num_samples = 0
        size = None if is_zipped else info.num_bytes
        for sample in read_samples(opened, info.path, size, 0, _wanted_by_scan):
            if num_samples % SLICE_RECORDS == 0:
                offsets.append(sample.start)
            num_samples += 1
            if num_samples <= _SAMPLED and sample.problem is None:
                beginnings[tuple(sample.members)] = None
                found = _read_json(sample) if _JSON in sample.members else None
                if isinstance(found, dict):
                    kinds.add(found)
    return _Shard(info, is_zipped, tuple(offsets), num_samples), tuple(beginnings), kinds


def _wanted_by_scan(number: int, extension: str, num_bytes: int) -> int:
    return min(num_bytes, MAX_LINE_BYTES + 1) if extension == _JSON and number < _SAMPLED else 0
