"""A prepared set, read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.data import storage
from mlim_ray.data.manifest import SPLITS, Manifest, Shard, Split, read_manifest
from mlim_ray.data.parquet import SHARD_SCHEMA, open_parquet, reading
from mlim_ray.data.tokenizer import TextTokenizer, load_tokenizer

TOKENIZER_FOLDER = "tokenizer"
MAX_OPEN_SHARDS = 16
"""file handles a process keeps"""


@dataclass(frozen=True)
class PreparedSet:
    """Records ready for a model, addressed by split and row group; small enough to travel with a task.

    Row groups are numbered through the shards of a split. Each is a random sample of its split, because
    records are placed by a hash of their key.
    """

    path: str
    manifest: Manifest

    @classmethod
    def open(cls, path: str) -> PreparedSet:
        """The set in the folder `path`. Raises ValueError that names it if there is none or it is damaged."""
        path = storage.absolute(path)
        return cls(path, read_manifest(path))

    def num_records(self, split: str) -> int:
        """Records of a split; 0 if it is empty."""
        return self._split(split).num_records

    def require(self, *splits: str) -> None:
        """Raise ValueError if a split has no records."""
        for split in splits:
            if self.num_records(split) == 0:
                sizes = ", ".join(f"{name} {self.num_records(name)}" for name in SPLITS)
                raise ValueError(
                    f"{self.path} has no records in split {split} ({sizes}); prepare a source with records "
                    f"of every split, or one without a split column, which is divided 80/10/10"
                )

    def row_groups(self, split: str) -> tuple[int, ...]:
        """The number of records of each row group of a split; all but the last are equal."""
        full, rest = divmod(self.num_records(split), self.manifest.row_group_records)
        return (self.manifest.row_group_records,) * full + ((rest,) if rest else ())

    def read_group(self, split: str, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Row group `group` of a split; all columns if none are named.

        Raises IndexError outside `row_groups(split)`, and ValueError that names the shard if it cannot be
        read.
        """
        first_groups, shards = self._layout[split]
        if not 0 <= group < first_groups[-1]:
            raise IndexError(f"row group {group} of split {split}, which has {first_groups[-1]}")
        place = bisect_right(first_groups, group) - 1
        path = storage.join(self.path, shards[place].path)
        with reading(path):
            file = _open_shard(path, shards[place].sha256)
            return file.read_row_group(group - first_groups[place], columns=_listed(columns), use_threads=False)

    def read(self, split: str, columns: Sequence[str] | None = None, limit: int | None = None) -> pa.Table:
        """The first `limit` records of a split (all by default), in row-group order."""
        sizes = self.row_groups(split)
        wanted = self.num_records(split) if limit is None else min(limit, self.num_records(split))
        num_groups = -(-wanted // self.manifest.row_group_records)
        tables = [self.read_group(split, group, columns) for group in range(min(num_groups, len(sizes)))]
        if not tables:
            schema = SHARD_SCHEMA if columns is None else pa.schema([SHARD_SCHEMA.field(c) for c in columns])
            return schema.empty_table()
        return pa.concat_tables(tables).slice(0, wanted).combine_chunks()

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer that the texts were split with."""
        return load_tokenizer(self.tokenizer_path)

    @property
    def tokenizer_path(self) -> str:
        """Folder of the tokenizer, in the form that transformers loads."""
        return storage.join(self.path, TOKENIZER_FOLDER)

    def verify(self) -> None:
        """Re-hash every shard. Raises ValueError that names the first one which is missing or differs."""
        for split in self.manifest.splits.values():
            for shard in split.shards:
                path = storage.join(self.path, shard.path)
                if storage.sha256(path) != shard.sha256:
                    raise ValueError(f"{path} differs from its manifest (sha256); prepare the set again")

    def __reduce__(self) -> tuple[object, ...]:
        # The layout is cheap to compute and large to carry.
        return type(self), (self.path, self.manifest)

    @cached_property
    def _layout(self) -> dict[str, tuple[list[int], tuple[Shard, ...]]]:
        """By split: the first row group of each shard, with the total at the end; and the shards."""
        layout = {}
        for name in SPLITS:
            split = self._split(name)
            first_groups = [0]
            for shard in split.shards:
                num_groups = -(-shard.num_records // self.manifest.row_group_records)
                first_groups.append(first_groups[-1] + num_groups)
            layout[name] = (first_groups, split.shards)
        return layout

    def _split(self, split: str) -> Split:
        if split not in SPLITS:
            raise ValueError(f"split {split!r}; expected one of {', '.join(SPLITS)}")
        return self.manifest.splits[split]


def _listed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


@lru_cache(maxsize=MAX_OPEN_SHARDS)
def _open_shard(path: str, sha256: str) -> pq.ParquetFile:
    # The hash is part of the cache's key: a set that was prepared anew has other content under the same path.
    return open_parquet(path, memory_map=True)
