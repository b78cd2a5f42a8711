"""Which source files a set was made from: how `prepare` tells, without reading records, that nothing is left to do.

One small Parquet file a generation beside the set. It alone holds change stamps (modification times or ETags), which
differ between copies of a source; nothing that reads a set looks at it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import FORMAT, OLDEST_VERSION
from mlim_ray.data.parquet import read_parquet
from mlim_ray.data.sources import Opened, Source
from mlim_ray.data.sources.listing import FILES_SCHEMA
from mlim_ray.data.sources.pictures import PICTURES_PREFIX
from mlim_ray.data.tokenizer import load_tokenizer

ORIGIN_FOLDER = "origin"
_RULES, _PICTURES = b"rules", b"pictures"


@dataclass(frozen=True)
class Origin:
    """Source files, and the rules that they were prepared under."""

    rules: str
    """hash of the config, the columns and the tokenizer"""
    pictures: str
    """hash over the pictures that lie beside the records; empty where there are none"""
    files: pa.Table
    """of FILES_SCHEMA, in the order of their names; about 80 bytes a file"""

    @classmethod
    def of(cls, opened: Opened, config: PrepareConfig, *, keep_rejected: bool) -> Origin:
        """What decides a set: equal for an unchanged source and config."""
        pictures = [entry for entry in opened.source.identity if entry[0].startswith(PICTURES_PREFIX)]
        files = opened.files.sort_by("file")
        return cls(_rules(opened.source, config, keep_rejected), _hash([pictures]) if pictures else "", files)

    @property
    def identity(self) -> str:
        """One hash of it all."""
        digest = hashlib.sha256(_hash([self.rules, self.pictures]).encode())
        for batch in self.files.to_batches(1_000):
            digest.update(json.dumps(batch.to_pylist(), default=bytes.hex).encode())
        return digest.hexdigest()

    def holds(self, other: Origin) -> bool:
        """Whether every file of `other` is one of these, unchanged."""
        return len(self.files.join(other.files, FILES_SCHEMA.names, join_type="inner")) == len(other.files)


def no_files() -> pa.Table:
    """The files of an origin without any."""
    return FILES_SCHEMA.empty_table()


def read_origin(out: str, num_generations: int) -> Origin:
    """The origin of all generations of the set in `out` together.

    Raises ValueError if it is not there, which no set that `prepare` finished lacks.
    """
    rules = pictures = ""
    files = [no_files()]
    for number in range(num_generations):
        path = _path(out, number)
        if not storage.exists(path):
            raise ValueError(
                f"{out} holds a set without {path}, so what it was made from cannot be told; name another folder, or "
                f"replace it with --overwrite"
            )
        table = read_parquet(path)
        metadata = table.schema.metadata or {}
        # A requeue adds no files and has no rules of its own; the last listing of pictures is of all of them.
        rules = rules or metadata.get(_RULES, b"").decode()
        pictures = metadata.get(_PICTURES, b"").decode() or pictures
        files.append(table.cast(FILES_SCHEMA))
    return Origin(rules, pictures, pa.concat_tables(files).combine_chunks().sort_by("file"))


def write_origin(out: str, number: int, origin: Origin) -> None:
    """Write what generation `number` was made from."""
    metadata = {_RULES: origin.rules.encode(), _PICTURES: origin.pictures.encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(origin.files.replace_schema_metadata(metadata), sink, compression="zstd")
    storage.write_bytes_atomically(_path(out, number), memoryview(sink.getvalue()))


def origin_names(num_generations: int) -> set[str]:
    """The names of the files in the origin's folder."""
    return {_name(number) for number in range(num_generations)}


def portable(config: PrepareConfig) -> PrepareConfig:
    """A config without the paths of one machine: what a manifest holds."""
    return config.model_copy(update={"image_folder": None, "tokenizer": None})


def deciding(config: PrepareConfig) -> dict[str, Any]:
    """The knobs that decide what a set holds, as plain values.

    Without attributes they are those of a set of `OLDEST_VERSION`, so that one written then is still known as prepared.
    """
    knobs = config.model_dump(mode="json")
    if not config.attribute_columns:
        del knobs["attribute_columns"]
    return knobs


def _rules(source: Source, config: PrepareConfig, keep_rejected: bool) -> str:
    tokenizer = None
    if config.tokenizer is not None:
        files = load_tokenizer(storage.absolute(config.tokenizer)).files()
        tokenizer = {name: storage.sha256_of(content) for name, content in files.items()}
    knobs = deciding(portable(config))
    return _hash([FORMAT, OLDEST_VERSION, knobs, source.columns.by_role(), tokenizer, keep_rejected])


def _hash(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _path(out: str, number: int) -> str:
    return storage.join(out, ORIGIN_FOLDER, _name(number))


def _name(number: int) -> str:
    return f"generation-{number:04d}.parquet"
