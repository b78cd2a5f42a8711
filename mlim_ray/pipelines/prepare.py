"""From raw records to a prepared set: two passes of Ray Data over the source (contract C4).

Pass 1 cleans slices of the source and lays the accepted records down by bucket (a range of key hashes).
Between the passes the vocabulary is trained on the training split. Pass 2 sorts each bucket, drops
duplicates, splits texts into pieces and writes shards. What is written depends on the source and the config
alone, not on how the work was spread.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import ray

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.destination import (
    STAGING_FOLDER,
    check_apart,
    clear_destination,
    fingerprint_of,
    present_set,
)
from mlim_ray.data.manifest import (
    SPLITS,
    Counts,
    Manifest,
    Shard,
    Split,
    StoredImage,
    StoredText,
    write_manifest,
)
from mlim_ray.data.prepared import TOKENIZER_FOLDER
from mlim_ray.data.quarantine import QUARANTINE_FOLDER, gather_quarantine, write_quarantine
from mlim_ray.data.rejection import Reason, Stage
from mlim_ray.data.shards import (
    TRAIN,
    TrainSums,
    duplicates_path,
    row_group_records,
    write_bucket,
    write_tail,
)
from mlim_ray.data.sources import Slice, Source, limit_slices, open_source
from mlim_ray.data.staging import first_of_key, read_bucket, to_table, write_slice
from mlim_ray.data.tokenizer import TextTokenizer, count_words, load_tokenizer, train_tokenizer
from mlim_ray.pipelines.ordered_map import map_in_order

FIRST_JUDGEMENT_RECORDS = 1_000
BUCKET_BYTES = 48_000_000
"""what a task holds of cleaned records, in both passes"""
_SLICE_MULTIPLE = 64
_MAX_BUCKETS = 4_096
# Enough pieces of work for a few cores where the records would fit into one bucket.
_MIN_BUCKETS = 4
_MIN_BUCKET_RECORDS = 2_048


@dataclass(frozen=True)
class PrepareSummary:
    """What became of every record: read = accepted + rejected + duplicates."""

    source: str
    out: str
    read: int
    accepted: int
    rejected: int
    duplicates: int
    cut_texts: int
    reasons: dict[str, int]
    """rejected and duplicate records by reason, the commonest first"""
    splits: dict[str, int]
    columns: dict[str, str]
    """role to column"""
    already_prepared: bool


class TooManyRejected(ValueError):
    """More records were rejected than `max_rejected_ratio` allows; nothing but the quarantine was written."""

    exit_code = 3
    """of the program that it ends: a script can tell it from a mistake in the command"""

    def __init__(self, source: str, quarantine: str, counts: _Cleaned, max_ratio: float) -> None:
        self.read = counts.read
        self.rejected = counts.rejected
        self.reasons = dict(counts.reasons.most_common())
        self.quarantine = quarantine
        common = ", ".join(f"{reason} {count}" for reason, count in counts.reasons.most_common(3))
        super().__init__(
            f"{counts.rejected} of the first {counts.read} records of {source} were rejected "
            f"({counts.rejected / counts.read:.1%}): {common}; at most {max_ratio:.1%} are allowed. "
            f"Look into {quarantine}, mend the source, or raise --max-rejected-ratio"
        )


def prepare(
    source: str,
    out: str,
    config: PrepareConfig,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareSummary:
    """Prepare `source` into the folder `out`, local or in S3. Ray is running; `config` is resolved.

    `on_progress` is told how many records of how many are done. If `out` holds the set of the same source
    and config, nothing is done. Raises ValueError for a source that cannot be read, for an `out` that holds
    something else, and if Ray is not running; TooManyRejected for a source of which too much is rejected.
    """
    if not overwrite:
        present = present_summary(source, out, config)
        if present is not None:
            return present
    opened = open_source(source, config)
    out = storage.absolute(out)
    check_apart(source, out)
    fingerprint = fingerprint_of(opened, config)
    if not ray.is_initialized():
        raise ValueError("Ray is not running; call ray.init() before prepare()")
    clear_destination(out)
    job = _Job(opened, out, config, on_progress)
    try:
        manifest = job.run(fingerprint)
    finally:
        storage.remove_tree(job.staging)
    return _summary(manifest, out, already_prepared=False)


def present_summary(source: str, out: str, config: PrepareConfig) -> PrepareSummary | None:
    """What `prepare` gives where the set of this source and config is in `out` already, else None; needs no Ray.

    Raises ValueError as `prepare` does.
    """
    opened = open_source(source, config)
    out = storage.absolute(out)
    check_apart(source, out)
    manifest = present_set(out, fingerprint_of(opened, config))
    return None if manifest is None else _summary(manifest, out, already_prepared=True)


@dataclass
class _Cleaned:
    """Counts of pass 1."""

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class _Job:
    """One run of both passes."""

    def __init__(
        self, source: Source, out: str, config: PrepareConfig, on_progress: Callable[[int, int], None] | None
    ) -> None:
        self.source = source
        self.out = out
        self.config = config
        self.rules = CleaningRules.of(config, source.columns.split is not None)
        self.staging = storage.join(out, STAGING_FOLDER)
        self.slices = limit_slices(source.slices(), _max_slice_records(self.rules))
        self.num_records = sum(part.stop - part.start for part in self.slices)
        self.num_buckets = _num_buckets(self.num_records, self.rules)
        self.slice_paths = [_slice_path(self.staging, i) for i in range(len(self.slices))]
        self._on_progress = on_progress

    def run(self, fingerprint: str) -> Manifest:
        cleaned = self._clean()
        if cleaned.accepted == 0:
            raise ValueError(
                f"none of the {cleaned.read} records of {self.source.name} was accepted; look into "
                f"{storage.join(self.out, QUARANTINE_FOLDER)}"
            )
        tokenizer = self._tokenizer()
        for name, content in tokenizer.files().items():
            storage.write_bytes_atomically(storage.join(self.out, TOKENIZER_FOLDER, name), content)
        manifest = self._write(cleaned, tokenizer, fingerprint)
        write_manifest(self.out, manifest)
        return manifest

    def _clean(self) -> _Cleaned:
        """Pass 1. Raises TooManyRejected, the quarantine written."""
        counts = _Cleaned()
        quarantined: list[str] = []
        judged = False
        work = CleanSlice(self.source, self.slices, self.rules, self.staging, self.num_buckets)
        results = map_in_order(work, len(self.slices))
        for number, result in enumerate(results):
            found = json.loads(result)
            counts.read += found["read"]
            counts.accepted += found["accepted"]
            counts.reasons.update(found["reasons"])
            counts.rejected = sum(counts.reasons.values())
            if found["reasons"]:
                quarantined.append(_rejected_path(self.staging, number))
            if self._on_progress is not None:
                self._on_progress(counts.read, self.num_records)
            if not judged and counts.read >= FIRST_JUDGEMENT_RECORDS:
                judged = True
                if self._too_many(counts):
                    break
        results.close()
        gather_quarantine(quarantined, self.out, Stage.CLEAN.value)
        if counts.read != counts.accepted + counts.rejected:
            raise RuntimeError(f"{counts.read} records read, {counts.accepted} + {counts.rejected} accounted for")
        if self._too_many(counts):
            quarantine = storage.join(self.out, QUARANTINE_FOLDER)
            raise TooManyRejected(self.source.name, quarantine, counts, self.config.max_rejected_ratio)
        if counts.read != self.num_records:
            raise ValueError(
                f"{self.source.name} held {self.num_records} records at first and {counts.read} when read; "
                f"prepare it again once nothing writes to it"
            )
        return counts

    def _too_many(self, counts: _Cleaned) -> bool:
        return counts.rejected > self.config.max_rejected_ratio * counts.read

    def _tokenizer(self) -> TextTokenizer:
        if self.config.tokenizer is not None:
            return load_tokenizer(storage.absolute(self.config.tokenizer))
        words: Counter[str] = Counter()
        for result in map_in_order(CountBucketWords(self.slice_paths), self.num_buckets):
            words.update(json.loads(result))
        if not words:
            raise ValueError(
                f"{self.source.name} has no accepted records in split {TRAIN}; expected some to train the "
                f"vocabulary on: check the split column, or leave it out with records of your own split"
            )
        return train_tokenizer(words, self.config.vocabulary_size)

    def _write(self, cleaned: _Cleaned, tokenizer: TextTokenizer, fingerprint: str) -> Manifest:
        """Pass 2, up to the manifest."""
        size = self.rules.image.size
        sums = TrainSums(np.zeros(tokenizer.vocab_size, np.int64))
        shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
        leftovers: dict[str, list[int]] = {split: [] for split in SPLITS}
        num_records: Counter[str] = Counter()
        duplicated: list[str] = []
        num_duplicates = num_cut = 0
        work = WriteBucket(self.slice_paths, self.staging, self.out, self.config.max_tokens, size)
        for bucket, result in enumerate(map_in_order(work, self.num_buckets)):
            found = json.loads(result)
            for split in SPLITS:
                shard, records = found["shards"].get(split), found["num_records"][split]
                num_records[split] += records
                if shard is not None:
                    shards[split].append(Shard(**shard))
                if records > (0 if shard is None else shard["num_records"]):
                    leftovers[split].append(bucket)
            sums.add(TrainSums(np.array(found["piece_counts"]), np.array(found["pixel_sums"]), found["num_pixels"]))
            num_duplicates += found["num_duplicates"]
            num_cut += found["num_cut"]
            if found["num_duplicates"]:
                duplicated.append(duplicates_path(self.staging, bucket))
        gather_quarantine(duplicated, self.out, Stage.DEDUPLICATE.value)
        for split in SPLITS:
            tail = write_tail(self.out, self.staging, split, leftovers[split], size)
            if tail is not None:
                shards[split].append(tail)
        reasons = cleaned.reasons + Counter({Reason.DUPLICATE_KEY.value: num_duplicates})
        counts = Counts(
            read=cleaned.read,
            accepted=num_records.total(),
            rejected=cleaned.rejected,
            duplicates=num_duplicates,
            cut_texts=num_cut,
            reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        )
        if counts.read != counts.accepted + counts.rejected + counts.duplicates:
            raise RuntimeError(f"a record was lost: {counts}")
        return Manifest(
            fingerprint=fingerprint,
            source=self.source.name,
            config=self.config,
            columns=self.source.columns.by_role(),
            counts=counts,
            splits={s: Split(num_records=num_records[s], shards=tuple(shards[s])) for s in SPLITS},
            row_group_records=row_group_records(size),
            image=StoredImage(size=size, encoding=self.rules.image_encoding),  # type: ignore[arg-type]
            text=StoredText(max_tokens=self.config.max_tokens, vocab_size=tokenizer.vocab_size),
            statistics=sums.statistics(),
            generated=self.source.generated,
        )


@dataclass(frozen=True)
class CleanSlice:
    """Pass 1 of one slice: accepted and rejected records to the staging folder, counts back."""

    source: Source
    slices: list[Slice]
    rules: CleaningRules
    staging: str
    num_buckets: int

    def __call__(self, number: int) -> str:
        accepted, rejected, num_read = [], [], 0
        for records in self.source.read(self.slices[number]):
            cleaned = clean(records, self.rules)
            num_read += len(records)
            rejected += cleaned.rejected
            if cleaned.accepted:
                accepted.append(to_table(cleaned.accepted, number))
        write_slice(_slice_path(self.staging, number), accepted, self.num_buckets)
        if rejected:
            write_quarantine(_rejected_path(self.staging, number), rejected)
        reasons = Counter(record.reason.value for record in rejected)
        return json.dumps({"read": num_read, "accepted": sum(map(len, accepted)), "reasons": reasons})


@dataclass(frozen=True)
class CountBucketWords:
    """The words of the training records of one bucket, each record once."""

    slice_paths: list[str]

    def __call__(self, bucket: int) -> str:
        table = read_bucket(self.slice_paths, bucket, ("key", "key_hash", "slice", "row", "text", "split"))
        chosen = first_of_key(table) & (table["split"].to_numpy(zero_copy_only=False) == TRAIN)
        return json.dumps(count_words(table["text"].filter(chosen).to_pylist()))


@dataclass(frozen=True)
class WriteBucket:
    """Pass 2 of one bucket: shards to the set, what belongs to the manifest back."""

    slice_paths: list[str]
    staging: str
    out: str
    max_tokens: int
    image_size: int

    def __call__(self, bucket: int) -> str:
        tokenizer = load_tokenizer(storage.join(self.out, TOKENIZER_FOLDER))
        table = read_bucket(self.slice_paths, bucket)
        result = write_bucket(self.out, self.staging, bucket, table, tokenizer, self.max_tokens, self.image_size)
        return json.dumps(
            {
                "shards": {split: shard.model_dump() for split, shard in result.shards.items()},
                "num_records": result.num_records,
                "num_duplicates": result.num_duplicates,
                "num_cut": result.num_cut,
                "piece_counts": result.sums.piece_counts.tolist(),
                "pixel_sums": result.sums.pixel_sums.tolist(),
                "num_pixels": result.sums.num_pixels,
            }
        )


def _slice_path(staging: str, number: int) -> str:
    return storage.join(staging, f"slice-{number:06d}.arrow")


def _rejected_path(staging: str, number: int) -> str:
    return storage.join(staging, f"rejected-{number:06d}.parquet")


def _max_slice_records(rules: CleaningRules) -> int:
    # A multiple of every row group, so that slices of a prepared set begin with one.
    return max(1, BUCKET_BYTES // _record_bytes(rules) // _SLICE_MULTIPLE) * _SLICE_MULTIPLE


def _record_bytes(rules: CleaningRules) -> int:
    # An encoded picture takes about a byte a pixel.
    return rules.image.size**2 * (3 if rules.image_encoding == "raw" else 1) + rules.max_text_characters


def _num_buckets(num_records: int, rules: CleaningRules) -> int:
    by_size = -(-num_records * _record_bytes(rules) // BUCKET_BYTES)
    by_records = min(_MIN_BUCKETS, num_records // _MIN_BUCKET_RECORDS)
    return min(_MAX_BUCKETS, max(1, by_size, by_records))


def _summary(manifest: Manifest, out: str, *, already_prepared: bool) -> PrepareSummary:
    counts = manifest.counts
    return PrepareSummary(
        source=manifest.source,
        out=out,
        read=counts.read,
        accepted=counts.accepted,
        rejected=counts.rejected,
        duplicates=counts.duplicates,
        cut_texts=counts.cut_texts,
        reasons=counts.reasons,
        splits={name: split.num_records for name, split in manifest.splits.items()},
        columns=manifest.columns,
        already_prepared=already_prepared,
    )
