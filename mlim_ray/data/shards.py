"""Writing a prepared set: shards with row groups of one size, and the leftovers in tail shards at a split's end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlim_ray.data import storage
from mlim_ray.data.manifest import SPLITS, Shard, Split, Statistics
from mlim_ray.data.parquet import open_parquet, reading, shard_schema
from mlim_ray.data.quarantine import write_quarantine
from mlim_ray.data.rejection import Reason, RejectedRecord, Stage
from mlim_ray.data.staging import first_of_key, read_rows, write_rows
from mlim_ray.data.tokenizer import TextTokenizer

SHARDS_FOLDER = "shards"
TRAIN = "train"
_TAIL_BYTES = 48_000_000


@dataclass
class TrainSums:
    """Sums over training records, exact and in any order, that the manifest's statistics come from."""

    piece_counts: NDArray[np.int64]
    """how often each piece of the vocabulary occurs, [CLS] and [SEP] left out"""
    pixel_sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(6, np.int64))
    """sum of each channel's values, then of their squares"""
    num_pixels: int = 0

    def add(self, other: TrainSums) -> None:
        """Add what another part of the training split summed up to."""
        self.piece_counts += other.piece_counts
        self.pixel_sums += other.pixel_sums
        self.num_pixels += other.num_pixels

    def statistics(self) -> Statistics:
        """Entropy of single pieces in nats, and variance of pixels in [0, 1] summed over channels."""
        counts = self.piece_counts[self.piece_counts > 0].astype(np.float64)
        shares = counts / counts.sum()
        # In whole numbers up to the last step, so that the order of adding never shows.
        spread = sum(
            self.num_pixels * int(squares) - int(values) ** 2
            for values, squares in zip(self.pixel_sums[:3], self.pixel_sums[3:], strict=True)
        )
        return Statistics(
            unigram_entropy=max(0.0, -math.fsum(shares * np.log(shares))),
            pixel_variance=spread / (self.num_pixels * 255) ** 2,
        )


@dataclass(frozen=True)
class BucketResult:
    """What one bucket gave."""

    shards: dict[str, Shard]
    """split to the bucket's shard, where it fills at least one row group"""
    num_records: dict[str, int]
    """split to accepted records, leftovers included"""
    num_duplicates: int
    num_cut: int
    sums: TrainSums
    waiting: dict[str, int]
    """path to CRC-32 of what waits in the staging folder for `write_tail`"""


def row_group_records(image_size: int) -> int:
    """Records of a row group: the unit that is read from disk and shuffled.

    64 small pictures (200 KB raw at 32 px) are cheap to read and mix finely; larger pictures take fewer, so
    that a row group stays within a few hundred KB.
    """
    return 64 if image_size <= 64 else 16


@dataclass(frozen=True)
class ShardWriter:
    """Writes the shards of one generation of a set; small enough to travel with a task."""

    out: str
    staging: str
    generation: int
    max_tokens: int
    image_size: int
    has_attributes: bool = False

    def write_bucket(
        self, bucket: int, table: pa.Table, tokenizer: TextTokenizer, earlier: pa.Table | None = None
    ) -> BucketResult:
        """Write the shards of one bucket, given as its sorted staging records.

        Of records with one key the first is kept, and none whose key is in `earlier`, the (key, split) of what
        the set has already. What does not fill a row group goes to the staging folder, for `write_tail`, and so
        do the quarantine rows of duplicates. Shards are not synced to the disk yet.
        """
        duplicates = Duplicates.of(table, earlier)
        kept = table
        if not duplicates.is_kept.all():
            kept = table.filter(pa.array(duplicates.is_kept))
            write_quarantine(duplicates_path(self.staging, bucket), duplicates.rows())
        size = row_group_records(self.image_size)
        sums = TrainSums(np.zeros(tokenizer.vocab_size, np.int64))
        shards, num_records, waiting = {}, {}, {}
        for split in SPLITS:
            records = kept.filter(pc.equal(kept["split"], split))
            num_records[split] = len(records)
            rows = self._to_shard_rows(records, tokenizer)
            if split == TRAIN and len(rows):
                sums.add(_sums(records, rows, tokenizer, self.image_size))
            full = len(rows) // size * size
            if full:
                shards[split] = self._write_shard(f"{split}-{bucket:05d}", rows.slice(0, full))
            if full < len(rows):
                path = _tail_path(self.staging, split, bucket)
                waiting[path] = write_rows(path, rows.slice(full))
        num_cut = int(pc.sum(kept["was_cut"]).as_py() or 0)
        return BucketResult(shards, num_records, len(table) - len(kept), num_cut, sums, waiting)

    def write_tail(self, split: str, buckets: Sequence[int]) -> list[Shard]:
        """Pack what the `buckets` left over of a split into its last shards, a bounded part at a time.

        They are not synced to the disk yet.
        """
        size = row_group_records(self.image_size)
        shards: list[Shard] = []
        waiting: list[pa.Table] = []
        for bucket in buckets:
            waiting.append(read_rows(_tail_path(self.staging, split, bucket)))
            if sum(part.nbytes for part in waiting) >= _TAIL_BYTES and sum(map(len, waiting)) >= size:
                rows = pa.concat_tables(waiting)
                full = len(rows) // size * size
                shards.append(self._write_shard(f"{split}-tail-{len(shards):05d}", rows.slice(0, full)))
                waiting = [rows.slice(full)]
        if sum(map(len, waiting)):
            shards.append(self._write_shard(f"{split}-tail-{len(shards):05d}", pa.concat_tables(waiting)))
        return shards

    def _to_shard_rows(self, records: pa.Table, tokenizer: TextTokenizer) -> pa.Table:
        schema = shard_schema(self.has_attributes)
        pieces = tokenizer.encode(records["text"].to_pylist(), self.max_tokens)
        columns = {name: records[name] for name in schema.names if name in records.column_names}
        columns["token_ids"] = pa.array([p.token_ids for p in pieces], schema.field("token_ids").type)
        columns["word_of_token"] = pa.array([p.word_of_token for p in pieces], schema.field("word_of_token").type)
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _write_shard(self, name: str, rows: pa.Table) -> Shard:
        added = f"g{self.generation:04d}-" if self.generation else ""
        path = f"{SHARDS_FOLDER}/{added}{name}.parquet"
        content = _write_rows(storage.join(self.out, path), rows, row_group_records(self.image_size))
        hashes = rows["key_hash"].to_numpy()
        return Shard(
            path=path,
            num_records=len(rows),
            num_bytes=len(content),
            sha256=storage.sha256_of(content),
            first_hash=f"{int(hashes.min()):016x}",
            last_hash=f"{int(hashes.max()):016x}",
        )


def earlier_keys(out: str, splits: Mapping[str, Split], first_hash: int, stop_hash: int) -> pa.Table:
    """Key and split of the set's records whose key hash is at least `first_hash` and below `stop_hash`."""
    parts = [pa.table({"key": pa.array([], pa.string()), "split": pa.array([], pa.string())})]
    for name, split in splits.items():
        for shard in split.shards:
            if int(shard.first_hash, 16) >= stop_hash or int(shard.last_hash, 16) < first_hash:
                continue
            path = storage.join(out, shard.path)
            with reading(path), open_parquet(path, memory_map=True) as opened:
                table = opened.read(["key", "key_hash"], use_threads=False)
            hashes = table["key_hash"].to_numpy()
            inside = (hashes >= np.uint64(first_hash)) & (hashes <= np.uint64(stop_hash - 1))
            keys = table["key"].filter(pa.array(inside)).combine_chunks()
            parts.append(pa.table({"key": keys, "split": pa.array([name] * len(keys), pa.string())}))
    return pa.concat_tables(parts)


def duplicates_path(staging: str, bucket: int) -> str:
    """Where a bucket's quarantine rows wait."""
    return storage.join(staging, f"duplicates-{bucket:05d}.parquet")


@dataclass(frozen=True)
class Duplicates:
    """Which records of a sorted bucket are kept, and why the others are not."""

    table: pa.Table
    earlier: dict[str, str]
    """keys of this bucket that the set has already, and their split"""
    is_kept: NDArray[np.bool_]

    @classmethod
    def of(cls, table: pa.Table, earlier: pa.Table | None) -> Duplicates:
        is_kept = first_of_key(table)
        found: dict[str, str] = {}
        if earlier is not None and len(earlier):
            known = pc.is_in(table["key"], value_set=earlier["key"]).to_numpy()
            is_kept &= ~known
            involved = earlier.filter(pc.is_in(earlier["key"], value_set=table["key"]))
            found = dict(zip(involved["key"].to_pylist(), involved["split"].to_pylist(), strict=True))
        return cls(table.select(["key", "source", "row", "split"]), found, is_kept)

    def rows(self) -> Iterator[RejectedRecord]:
        """The quarantine rows, in the bucket's order."""
        first = first_of_key(self.table)
        # Only keys that occur twice are looked at in Python.
        involved = ~self.is_kept | np.append(~first[1:], False)
        kept: dict[str, Any] = {}
        for is_kept, record in zip(
            self.is_kept[involved], self.table.filter(pa.array(involved)).to_pylist(), strict=True
        ):
            if is_kept:
                kept = record
                continue
            if record["key"] in self.earlier:
                split, place = self.earlier[record["key"]], "in the set since an earlier generation"
            else:
                split, place = kept["split"], f"row {kept['row']} of {kept['source']}"
            detail = f"the first record with this key is {place}"
            if record["split"] != split:
                detail += f"; it is in split {split}, this one in split {record['split']}"
            yield RejectedRecord(
                record["key"], record["source"], record["row"], Stage.DEDUPLICATE, Reason.DUPLICATE_KEY, detail
            )


def _tail_path(staging: str, split: str, bucket: int) -> str:
    return storage.join(staging, f"tail-{split}-{bucket:05d}.arrow")


def _sums(records: pa.Table, rows: pa.Table, tokenizer: TextTokenizer, image_size: int) -> TrainSums:
    ids = pc.list_flatten(rows["token_ids"]).to_numpy()
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    counts[[tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]] = 0
    pixel_sums = pc.list_flatten(records["pixel_sums"]).to_numpy().reshape(-1, 6).sum(0)
    return TrainSums(counts, pixel_sums, len(records) * image_size**2)


def _write_rows(path: str, rows: pa.Table, group_size: int) -> memoryview:
    sink = pa.BufferOutputStream()
    # Pictures hardly shrink and are read far more often than written; dictionaries and page statistics of unique values
    # only take space. Pages are so short that zstd needs a third of all the time of writing to begin them, for 0.1 to
    # 2.5 % fewer bytes than lz4. A flipped bit is seldom seen otherwise: a picture of noise is a picture.
    compression = {name: "none" if name == "image" else "lz4" for name in rows.schema.names}
    compression |= {f"{name}.list.element": "lz4" for name in ("token_ids", "word_of_token")}
    attributes = [f"attributes.key_value.{part}" for part in ("key", "value") if "attributes" in rows.schema.names]
    compression |= dict.fromkeys(attributes, "lz4")
    pq.write_table(
        rows,
        sink,
        row_group_size=group_size,
        compression=compression,
        use_dictionary=["label", "group", *attributes],
        write_statistics=False,
        write_page_checksum=True,
    )
    content = memoryview(sink.getvalue())
    storage.write_unsynced(path, [content])
    return content
