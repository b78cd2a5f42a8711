"""What the tasks of `prepare` do: clean one slice of the source, regroup what waits, write one bucket of the set.

Each leaves its result in the staging folder as its last act, and finds it there when the run is continued. What a
task writes depends on its number alone, so a task that runs twice writes the same bytes twice.

No task waits for the disk. A result names the files that were written for it with their checksums, and one that is
found counts only if they are there and are the same: after a power cut they may not be. The driver syncs the shards
before a manifest names them.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.digest import add_digests, digest_records, digest_text
from mlim_ray.data.manifest import Split
from mlim_ray.data.prepared import TOKENIZER_FOLDER
from mlim_ray.data.quarantine import write_quarantine
from mlim_ray.data.shards import TRAIN, ShardWriter, earlier_keys
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import Slice, Source
from mlim_ray.data.staging import bucket_range, to_table
from mlim_ray.data.tokenizer import count_words, load_tokenizer

Result = dict[str, Any]
Checksum = TypeVar("Checksum", int, str)


@dataclass(frozen=True)
class CleanSlice:
    """Pass 1 of one slice: accepted and rejected records to the staging folder, counts back."""

    source: Source
    slices: list[Slice]
    rules: CleaningRules
    shuffle: Shuffle
    keeps_rejected: bool
    counts_words: bool

    def __call__(self, number: int) -> str:
        return once(
            storage.join(self.shuffle.staging, f"slice-{number:06d}.json"), lambda: self._clean(number), _is_staged
        )

    def _clean(self, number: int) -> Result:
        counts = _SliceCounts()
        accepted = []
        for records in self.source.read(self.slices[number]):
            cleaned = clean(records, self.rules)
            counts.digest = add_digests([counts.digest, digest_records(records)])
            counts.read += len(records)
            if cleaned.rejected:
                originals = {(r.source, r.row): r for r in records} if self.keeps_rejected else None
                # A file for each batch of the source, whose bytes are bounded.
                path = rejected_path(self.shuffle.staging, number, counts.rejected_files)
                write_quarantine(path, cleaned.rejected, originals)
                counts.rejected_files += 1
                counts.reasons.update(record.reason.value for record in cleaned.rejected)
            if cleaned.accepted:
                accepted.append(to_table(cleaned.accepted, number))
            if self.counts_words:
                counts.words += count_words(record.text for record in cleaned.accepted if record.split == TRAIN)
        return {
            "files": self.shuffle.write_slice(number, accepted),
            "read": counts.read,
            "accepted": sum(map(len, accepted)),
            "reasons": dict(counts.reasons),
            "rejected_files": counts.rejected_files,
            "digest": digest_text(counts.digest),
            "words": dict(counts.words),
        }


@dataclass
class _SliceCounts:
    read: int = 0
    digest: int = 0
    rejected_files: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Regroup:
    """One piece of the stage between the passes, where there is one."""

    shuffle: Shuffle

    def __call__(self, piece: int) -> str:
        path = storage.join(self.shuffle.staging, f"piece-{piece:08d}.json")
        return once(path, lambda: {"files": self.shuffle.regroup(piece)}, _is_staged)


@dataclass(frozen=True)
class WriteBucket:
    """Pass 2 of one bucket: shards to the set, what belongs to the manifest back."""

    writer: ShardWriter
    shuffle: Shuffle
    earlier: dict[str, Split]
    """what the set holds already"""

    def __call__(self, bucket: int) -> str:
        path = storage.join(self.writer.staging, f"bucket-{bucket:06d}.json")
        return once(path, lambda: self._write(bucket), self._is_written)

    def _is_written(self, result: Result) -> bool:
        shards = result["shards"].values()
        return _is_staged(result) and all(
            _is_there(storage.join(self.writer.out, shard["path"]), storage.sha256, shard["sha256"]) for shard in shards
        )

    def _write(self, bucket: int) -> Result:
        tokenizer = load_tokenizer(storage.join(self.writer.out, TOKENIZER_FOLDER))
        table = self.shuffle.read_bucket(bucket)
        earlier = None
        if self.earlier:
            earlier = earlier_keys(self.writer.out, self.earlier, *bucket_range(bucket, self.shuffle.num_buckets))
        result = self.writer.write_bucket(bucket, table, tokenizer, earlier)
        return {
            "files": result.waiting,
            "shards": {split: shard.model_dump() for split, shard in result.shards.items()},
            "num_records": result.num_records,
            "num_duplicates": result.num_duplicates,
            "num_cut": result.num_cut,
            "piece_counts": result.sums.piece_counts.tolist(),
            "pixel_sums": result.sums.pixel_sums.tolist(),
            "num_pixels": result.sums.num_pixels,
        }


def rejected_path(staging: str, number: int, part: int) -> str:
    """Where the rejected records of a batch of a slice wait."""
    return storage.join(staging, f"rejected-{number:06d}-{part:04d}.parquet")


def once(path: str, work: Callable[[], Result], is_whole: Callable[[Result], bool] = lambda _: True) -> str:
    """The result at `path`; made by `work` and left there if it is not there yet, or not all that it names.

    Work that waits for the disk itself leaves nothing to check.
    """
    if storage.exists(path):
        found = _read(path)
        if found is not None and is_whole(found):
            return json.dumps(found)
    result = json.dumps(work())
    storage.write_unsynced(path, [result.encode()])
    return result


def _read(path: str) -> Result | None:
    """The result at `path`; None if the power went before all of it was on the disk."""
    try:
        found: Result = json.loads(storage.read_bytes(path))
    except ValueError:
        return None
    return found


def _is_staged(result: Result) -> bool:
    return all(
        _is_there(path, lambda path: zlib.crc32(storage.read_bytes(path)), checksum)
        for path, checksum in result["files"].items()
    )


def _is_there(path: str, checksum_of: Callable[[str], Checksum], expected: Checksum) -> bool:
    """Whether the file is the one that was written; what is in S3 is whole as soon as it is there."""
    if not storage.exists(path):
        return False
    return storage.is_remote(path) or checksum_of(path) == expected
