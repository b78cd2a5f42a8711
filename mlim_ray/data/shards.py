"""Writing a prepared set: shards with row groups of one size, and the leftovers in one shard a split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlim_ray.data import storage
from mlim_ray.data.manifest import SPLITS, Shard, Statistics
from mlim_ray.data.parquet import SHARD_SCHEMA
from mlim_ray.data.quarantine import write_quarantine
from mlim_ray.data.rejection import Reason, RejectedRecord, Stage
from mlim_ray.data.staging import first_of_key
from mlim_ray.data.tokenizer import TextTokenizer

SHARDS_FOLDER = "shards"
TRAIN = "train"


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


def row_group_records(image_size: int) -> int:
    """Records of a row group: the unit that is read from disk and shuffled.

    64 small pictures (200 KB raw at 32 px) are cheap to read and mix finely; larger pictures take fewer, so
    that a row group stays within a few hundred KB.
    """
    return 64 if image_size <= 64 else 16


def write_bucket(
    out: str,
    staging: str,
    bucket: int,
    table: pa.Table,
    tokenizer: TextTokenizer,
    max_tokens: int,
    image_size: int,
) -> BucketResult:
    """Write the shards of one bucket, given as its sorted staging records.

    Of records with one key the first is kept. What does not fill a row group goes to the staging folder, for
    `write_tail`, and so do the quarantine rows of duplicates.
    """
    first = first_of_key(table)
    kept = table.filter(pa.array(first))
    duplicates = list(_duplicates(table.select(["key", "source", "row", "split"]), first))
    if duplicates:
        write_quarantine(duplicates_path(staging, bucket), duplicates)
    size = row_group_records(image_size)
    sums = TrainSums(np.zeros(tokenizer.vocab_size, np.int64))
    shards, num_records = {}, {}
    for split in SPLITS:
        records = kept.filter(pc.equal(kept["split"], split))
        num_records[split] = len(records)
        rows = _to_shard_rows(records, tokenizer, max_tokens)
        if split == TRAIN and len(rows):
            sums.add(_sums(records, rows, tokenizer, image_size))
        full = len(rows) // size * size
        if full:
            shards[split] = _write_shard(out, f"{split}-{bucket:05d}", rows.slice(0, full), size)
        if full < len(rows):
            _write_rows(tail_path(staging, split, bucket), rows.slice(full), size)
    num_cut = int(pc.sum(kept["was_cut"]).as_py() or 0)
    return BucketResult(shards, num_records, len(duplicates), num_cut, sums)


def write_tail(out: str, staging: str, split: str, buckets: Sequence[int], image_size: int) -> Shard | None:
    """Pack what the `buckets` left over of a split into its last shard; None if nothing was left over."""
    tables = [pq.read_table(storage.open_read(tail_path(staging, split, b)), schema=SHARD_SCHEMA) for b in buckets]
    if not tables:
        return None
    return _write_shard(out, f"{split}-tail", pa.concat_tables(tables), row_group_records(image_size))


def tail_path(staging: str, split: str, bucket: int) -> str:
    """Where a bucket's leftovers of a split wait."""
    return storage.join(staging, f"tail-{split}-{bucket:05d}.parquet")


def duplicates_path(staging: str, bucket: int) -> str:
    """Where a bucket's quarantine rows wait."""
    return storage.join(staging, f"duplicates-{bucket:05d}.parquet")


def _duplicates(table: pa.Table, first: NDArray[np.bool_]) -> Iterator[RejectedRecord]:
    if first.all():
        return
    # Only keys that occur twice are looked at in Python.
    involved = ~first | np.append(~first[1:], False)
    kept: dict[str, object] = {}
    for is_first, record in zip(first[involved], table.filter(pa.array(involved)).to_pylist(), strict=True):
        if is_first:
            kept = record
            continue
        detail = f"the first record with this key is row {kept['row']} of {kept['source']}"
        if record["split"] != kept["split"]:
            detail += f"; it is in split {kept['split']}, this one in split {record['split']}"
        yield RejectedRecord(
            record["key"], record["source"], record["row"], Stage.DEDUPLICATE, Reason.DUPLICATE_KEY, detail
        )


def _to_shard_rows(records: pa.Table, tokenizer: TextTokenizer, max_tokens: int) -> pa.Table:
    pieces = tokenizer.encode(records["text"].to_pylist(), max_tokens)
    columns = {name: records[name] for name in SHARD_SCHEMA.names if name in records.column_names}
    columns["token_ids"] = pa.array([p.token_ids for p in pieces], SHARD_SCHEMA.field("token_ids").type)
    columns["word_of_token"] = pa.array([p.word_of_token for p in pieces], SHARD_SCHEMA.field("word_of_token").type)
    return pa.table([columns[name] for name in SHARD_SCHEMA.names], schema=SHARD_SCHEMA)


def _sums(records: pa.Table, rows: pa.Table, tokenizer: TextTokenizer, image_size: int) -> TrainSums:
    ids = pc.list_flatten(rows["token_ids"]).to_numpy()
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    counts[[tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]] = 0
    pixel_sums = pc.list_flatten(records["pixel_sums"]).to_numpy().reshape(-1, 6).sum(0)
    return TrainSums(counts, pixel_sums, len(records) * image_size**2)


def _write_shard(out: str, name: str, rows: pa.Table, group_size: int) -> Shard:
    path = f"{SHARDS_FOLDER}/{name}.parquet"
    content = _write_rows(storage.join(out, path), rows, group_size)
    return Shard(path=path, num_records=len(rows), num_bytes=len(content), sha256=storage.sha256_of(content))


def _write_rows(path: str, rows: pa.Table, group_size: int) -> memoryview:
    sink = pa.BufferOutputStream()
    # Pictures hardly shrink and are read far more often than written; dictionaries and page statistics of
    # unique values only take space.
    compression = {name: "none" if name == "image" else "zstd" for name in SHARD_SCHEMA.names}
    compression |= {f"{name}.list.element": "zstd" for name in ("token_ids", "word_of_token")}
    pq.write_table(
        rows,
        sink,
        row_group_size=group_size,
        compression=compression,
        use_dictionary=["label", "group"],
        write_statistics=False,
    )
    content = memoryview(sink.getvalue())
    storage.write_bytes_atomically(path, content)
    return content
