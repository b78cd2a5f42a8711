"""A prepared set as a source, for preparing it again with another config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.images import Pixels, decode_stored
from mlim_ray.data.manifest import SPLITS, Generated, Shard
from mlim_ray.data.parquet import ATTRIBUTES, open_parquet, reading, shard_schema
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.schema import Columns
from mlim_ray.data.sources.source import SLICE_RECORDS, Slice

_COLUMNS = ("key", "image", "text", "label", "group")
# Every shard belongs to one split, so the split has no column.
_SPLIT = "(shard)"


@dataclass(frozen=True)
class PreparedSource:
    """The shards of a prepared set."""

    name: str
    prepared: PreparedSet
    shards: tuple[tuple[str, Shard], ...]
    """split and shard"""
    columns: Columns
    format: str = "prepared set"

    @classmethod
    def open(cls, name: str, config: PrepareConfig) -> PreparedSource:
        """Raises ValueError if the set is damaged, or if `config` names columns, which are fixed."""
        named = [role for role in ("image", "text", "key", "label", "group", "split") if _is_named(config, role)]
        if named or config.text is not None:
            flags = ", ".join([f"--{role}-column" for role in named] + ["--text"] * (config.text is not None))
            raise ValueError(f"{flags} given for the prepared set {name}, whose columns are fixed; leave it out")
        prepared = PreparedSet.open(name)
        shards = tuple((split, shard) for split in SPLITS for shard in prepared.manifest.splits[split].shards)
        stored = prepared.manifest.attributes
        for column in config.attribute_columns:
            if column not in stored:
                raise ValueError(
                    f"--attribute-columns {column}: the prepared set {name} has no such attribute, only "
                    f"{', '.join(stored) or 'none'}; prepare it from its source with this column"
                )
        columns = Columns("image", "text", "key", "label", "group", _SPLIT, attributes=config.attribute_columns)
        return cls(name, prepared, shards, columns)

    @property
    def column_types(self) -> dict[str, str]:
        """Columns of a shard."""
        return {field.name: str(field.type) for field in shard_schema(bool(self.prepared.manifest.attributes))}

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and sha256 of every shard."""
        return [(shard.path, shard.num_bytes, shard.sha256) for _, shard in self.shards]

    @property
    def generated(self) -> Generated | None:
        """The catalogue that the set was made from."""
        return self.prepared.manifest.generated

    def slices(self) -> list[Slice]:
        """Runs of whole row groups."""
        step = self.prepared.manifest.row_group_records
        return [
            Slice(number, start, min(start + SLICE_RECORDS // step * step, shard.num_records))
            for number, (_, shard) in enumerate(self.shards)
            for start in range(0, shard.num_records, SLICE_RECORDS // step * step)
        ]

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice, one row group at a time."""
        split, shard = self.shards[part.file]
        manifest = self.prepared.manifest
        path = storage.join(self.prepared.path, shard.path)
        names = [*_COLUMNS, *([ATTRIBUTES.name] if self.columns.attributes else [])]
        with reading(path), open_parquet(path, memory_map=True) as opened:
            step = manifest.row_group_records
            for start in range(part.start, part.stop, step):
                table = opened.read_row_group(start // step, columns=names, use_threads=False)
                table = table.slice(0, part.stop - start)
                rows = zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)
                yield [
                    RawRecord(shard.path, row, key, self._image(image), text, label, group, split, attributes=found)
                    for row, ((key, image, text, label, group), found) in enumerate(
                        zip(rows, self._attributes(table), strict=True), start
                    )
                ]

    def _attributes(self, table: pa.Table) -> list[dict[str, str | None]]:
        wanted = self.columns.attributes
        found = table[ATTRIBUTES.name].to_pylist() if wanted else [()] * len(table)
        return [{name: dict(pairs).get(name) for name in wanted} for pairs in found]

    def _image(self, stored: bytes) -> bytes | Pixels:
        image = self.prepared.manifest.image
        return decode_stored(stored, image.size, image.encoding) if image.encoding == "raw" else stored


def _is_named(config: PrepareConfig, role: str) -> bool:
    return getattr(config, f"{role}_column") is not None
