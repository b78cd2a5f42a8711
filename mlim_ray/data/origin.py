"""Which source files a set was made from: how `prepare` tells, without reading records, that nothing is left to do.

One small Parquet file a generation beside the set. It alone holds change stamps (modification times or ETags), which
differ between copies of a source; nothing that reads a set looks at it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import FORMAT, VERSION
from mlim_ray.data.sources import Source
from mlim_ray.data.tokenizer import load_tokenizer

ORIGIN_FOLDER = "origin"
_SCHEMA = pa.schema([("file", pa.string()), ("num_bytes", pa.int64()), ("stamp", pa.string())])
_RULES = b"rules"

Stamps = dict[str, tuple[int, str]]
"""Relative file to its size and change stamp."""


@dataclass(frozen=True)
class Origin:
    """Source files, and the rules that they were prepared under."""

    rules: str
    """hash of the config, the columns and the tokenizer"""
    files: Stamps

    @classmethod
    def of(cls, source: Source, config: PrepareConfig, *, keep_rejected: bool) -> Origin:
        """What decides a set: equal for an unchanged source and config."""
        files = {_printable(file): (num_bytes, stamp) for file, num_bytes, stamp in source.identity}
        return cls(_rules(source, config, keep_rejected), files)

    @property
    def identity(self) -> str:
        """One hash of it all."""
        return _hash([self.rules, sorted(self.files.items())])


def read_origin(out: str, num_generations: int) -> Origin:
    """The origin of all generations of the set in `out` together.

    Raises ValueError if it is not there, which no set that `prepare` finished lacks.
    """
    rules = ""
    files: Stamps = {}
    for number in range(num_generations):
        path = _path(out, number)
        if not storage.exists(path):
            raise ValueError(
                f"{out} holds a set without {path}, so what it was made from cannot be told; name another folder, or "
                f"replace it with --overwrite"
            )
        with storage.open_read(path) as file:
            table = pq.read_table(file)
        # A requeue adds no files and has no rules of its own.
        rules = rules or (table.schema.metadata or {}).get(_RULES, b"").decode()
        files.update(_stamps(table))
    return Origin(rules, files)


def write_origin(out: str, number: int, origin: Origin) -> None:
    """Write what generation `number` was made from."""
    rows = sorted((file, num_bytes, stamp) for file, (num_bytes, stamp) in origin.files.items())
    columns = [[row[i] for row in rows] for i in range(3)]
    table = pa.table(columns, schema=_SCHEMA).replace_schema_metadata({_RULES: origin.rules.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes_atomically(_path(out, number), memoryview(sink.getvalue()))


def origin_names(num_generations: int) -> set[str]:
    """The names of the files in the origin's folder."""
    return {_name(number) for number in range(num_generations)}


def _stamps(table: pa.Table) -> Iterator[tuple[str, tuple[int, str]]]:
    for file, num_bytes, stamp in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield file, (num_bytes, stamp)


def _rules(source: Source, config: PrepareConfig, keep_rejected: bool) -> str:
    tokenizer = None
    if config.tokenizer is not None:
        files = load_tokenizer(storage.absolute(config.tokenizer)).files()
        tokenizer = {name: storage.sha256_of(content) for name, content in files.items()}
    knobs = portable(config).model_dump(mode="json")
    return _hash([FORMAT, VERSION, knobs, source.columns.by_role(), tokenizer, keep_rejected])


def portable(config: PrepareConfig) -> PrepareConfig:
    """A config without the paths of one machine: what a manifest holds."""
    return config.model_copy(update={"image_folder": None, "tokenizer": None})


def _hash(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _printable(file: str) -> str:
    # File names are bytes to the system; Arrow takes UTF-8 only.
    return file.encode("utf-8", "backslashreplace").decode()


def _path(out: str, number: int) -> str:
    return storage.join(out, ORIGIN_FOLDER, _name(number))


def _name(number: int) -> str:
    return f"generation-{number:04d}.parquet"
