"""A prepared set, read."""

from __future__ import annotations

import logging
import pickle
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import pyarrow as pa

from mlim_ray.data import storage
from mlim_ray.data.manifest import SPLITS, Manifest, Shard, Split, StoredFile, read_manifest
from mlim_ray.data.parquet import shard_schema
from mlim_ray.data.row_groups import DamagedShardError, RowGroup, read_row_group
from mlim_ray.data.shard_cache import ShardCache
from mlim_ray.data.tokenizer import TextTokenizer, load_tokenizer

TOKENIZER_FOLDER = "tokenizer"
_VERIFYING_THREADS = 8
_SETS_HELD = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedSet:
    """Records ready for a model, addressed by split and row group; small enough to travel with a task.

    Row groups are numbered through the shards of a split. Each is a random sample of its split, because
    records are placed by a hash of their key.
    """

    path: str
    manifest: Manifest
    cache: ShardCache | None = None
    """where each node keeps the shards that it reads; None: they are read where they are"""

    @classmethod
    def open(cls, path: str) -> PreparedSet:
        """The set in the folder `path`. Raises ValueError that names it if there is none or it is damaged."""
        path = storage.absolute(path)
        return cls(path, read_manifest(path))

    def cached(self, cache: ShardCache | None) -> PreparedSet:
        """The same set, its shards kept on each node that reads them if it lies in S3."""
        return replace(self, cache=cache) if storage.is_remote(self.path) else self

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

    def num_groups(self, split: str) -> int:
        """Row groups of a split."""
        self._split(split)
        return self._layout[split][0][-1]

    def short_groups(self, split: str) -> tuple[tuple[int, int], ...]:
        """The row groups with fewer records than `row_group_records`, as (group, records): one a generation at most."""
        self._split(split)
        first_groups, shards = self._layout[split]
        size = self.manifest.row_group_records
        return tuple(
            (after - 1, shard.num_records % size)
            for after, shard in zip(first_groups[1:], shards, strict=True)
            if shard.num_records % size
        )

    def row_groups(self, split: str) -> tuple[int, ...]:
        """The number of records of each row group of a split."""
        short = dict(self.short_groups(split))
        return tuple(short.get(group, self.manifest.row_group_records) for group in range(self.num_groups(split)))

    def row_group(self, split: str, group: int) -> RowGroup:
        """Where row group `group` of a split lies. Raises IndexError outside `row_groups(split)`."""
        first_groups, shards = self._layout[split]
        if not 0 <= group < first_groups[-1]:
            raise IndexError(f"row group {group} of split {split}, which has {first_groups[-1]}")
        place = bisect_right(first_groups, group) - 1
        index, size = group - first_groups[place], self.manifest.row_group_records
        return RowGroup(self.path, shards[place], index, size, bool(self.manifest.attributes))

    def read_group(self, split: str, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Row group `group` of a split; all columns if none are named.

        Raises:
            IndexError: there is no such row group.
            DamagedShardError: it is not what was prepared.
            StorageError: it cannot be read for another reason.
        """
        return read_row_group(self.row_group(split, group), columns, self.cache)

    def read(
        self,
        split: str,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        *,
        skips_damaged: bool = False,
    ) -> pa.Table:
        """The first `limit` records of a split (all by default), in row-group order.

        Raises as `read_group` does; with `skips_damaged` a damaged row group is named in the log and left out.
        """
        wanted = self.num_records(split) if limit is None else min(limit, self.num_records(split))
        schema = shard_schema(bool(self.manifest.attributes))
        schema = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        tables: list[pa.Table] = [schema.empty_table()]
        for group in range(self.num_groups(split)):
            if sum(map(len, tables)) >= wanted:
                break
            try:
                tables.append(self.read_group(split, group, columns))
            except DamagedShardError as error:
                if not skips_damaged:
                    raise
                logger.warning("left out: %s", error)
        return pa.concat_tables(tables).slice(0, wanted).combine_chunks()

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer that the texts were split with."""
        return load_tokenizer(self.tokenizer_path)

    @property
    def tokenizer_path(self) -> str:
        """Folder of the tokenizer, in the form that transformers loads."""
        return storage.join(self.path, TOKENIZER_FOLDER)

    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Re-hash every file that the manifest names.

        `on_progress` is told how many files of how many are read. Raises ValueError that names each file which is
        missing or differs.
        """
        files = self.manifest.files()
        with ThreadPoolExecutor(_VERIFYING_THREADS) as pool:
            damages = []
            for done, damage in enumerate(pool.map(self._damage, files), 1):
                damages += [damage] if damage else []
                if on_progress is not None:
                    on_progress(done, len(files))
        if damages:
            raise ValueError(
                f"{len(damages)} of {len(files)} files of {self.path} are damaged: {', '.join(damages[:10])}"
                f"{' and more' if len(damages) > 10 else ''}; restore them from a copy, or prepare the set again"
            )

    def _damage(self, file: StoredFile) -> str | None:
        path = storage.join(self.path, file.path)
        try:
            found = storage.sha256(path)
        except storage.MissingPathError:
            return f"{path} is missing"
        return None if found == file.sha256 else f"{path} differs from its manifest (sha256)"

    def __reduce__(self) -> tuple[object, ...]:
        # Every task of a feed is sent the set. To build a manifest of many shards, and the layout, takes longer than to
        # decode a task's records: a process does so once.
        return _received, (self.path, pickle.dumps(self.manifest), self.cache)

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


@lru_cache(maxsize=_SETS_HELD)
def _received(path: str, manifest: bytes, cache: ShardCache | None) -> PreparedSet:
    return PreparedSet(path, pickle.loads(manifest), cache)
