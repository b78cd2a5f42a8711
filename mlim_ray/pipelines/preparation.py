"""One run of all passes of `prepare`, from the slices of a source to the manifest of a set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.digest import add_digests, digest_text
from mlim_ray.data.manifest import (
    FORMAT,
    OLDEST_VERSION,
    SPLITS,
    Counts,
    Generation,
    Manifest,
    Shard,
    Split,
    StoredFile,
    StoredImage,
    StoredText,
    library_versions,
)
from mlim_ray.data.origin import deciding, portable
from mlim_ray.data.parquet import shard_schema
from mlim_ray.data.prepared import TOKENIZER_FOLDER
from mlim_ray.data.quarantine import QUARANTINE_FOLDER, Place, gather_quarantine, places_of, read_quarantine
from mlim_ray.data.rejection import Reason, Stage
from mlim_ray.data.shards import TRAIN, ShardWriter, TrainSums, duplicates_path, row_group_records
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import Source
from mlim_ray.data.sources.source import source_label
from mlim_ray.data.task_sizes import num_buckets, source_slices
from mlim_ray.data.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer
from mlim_ray.pipelines.ordered_map import map_in_order
from mlim_ray.pipelines.prepare_tasks import CleanSlice, Regroup, WriteBucket, rejected_path

FIRST_JUDGEMENT_RECORDS = 1_000
MAX_DISTINCT_WORDS = 1_000_000
"""words that are counted for the vocabulary; past it the rarer half is forgotten, so that memory is bounded"""
_SYNCING_THREADS = 4


class TooManyRejected(ValueError):
    """More records were rejected than `max_rejected_ratio` allows; nothing but the quarantine was written."""

    exit_code = 3
    """of the program that it ends: a script can tell it from a mistake in the command"""

    def __init__(self, source: str, quarantine: str, counts: SourceCounts, max_ratio: float) -> None:
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


@dataclass(frozen=True)
class Addition:
    """Records that are to become a generation of a set."""

    kind: Literal["prepare", "append", "requeue"]
    source: Source
    out: str
    config: PrepareConfig
    keeps_rejected: bool
    base: Manifest | None = None
    """the set as it is; None for the first generation"""
    requeued: frozenset[Place] = frozenset()
    """records of the quarantine that are judged again"""


@dataclass
class SourceCounts:
    """What became of the records of a source as they were cleaned."""

    read: int = 0
    accepted: int = 0
    digest: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    rejected_paths: list[str] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        return self.reasons.total()


@dataclass
class _Written:
    """What pass 2 adds to each split."""

    shards: dict[str, list[Shard]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    num_records: Counter[str] = field(default_factory=Counter)
    num_cut: int = 0
    duplicates_paths: list[str] = field(default_factory=list)


class Preparation:
    """All passes; `run` gives the manifest, which the caller writes last."""

    def __init__(self, addition: Addition, staging: str, on_progress: Callable[[int, int], None] | None) -> None:
        self.addition = addition
        self.source, self.out, self.config, self.base = addition.source, addition.out, addition.config, addition.base
        self.staging = staging
        self.rules = CleaningRules.of(self.config, self.source.columns.split is not None)
        self.slices = source_slices(self.source, self.rules)
        self.num_records = sum(part.stop - part.start for part in self.slices)
        self.shuffle = Shuffle.plan(staging, len(self.slices), num_buckets(self.num_records, self.rules))
        self.generation = 0 if self.base is None else len(self.base.generations)
        self._on_progress = on_progress

    def run(self) -> Manifest:
        """Write everything but the manifest.

        Raises TooManyRejected, the quarantine written, and ValueError for a source without usable records.
        """
        cleaned = self._clean()
        tokenizer = self._tokenizer(cleaned.words)
        regroup(self.shuffle)
        written, sums = self._write(tokenizer)
        quarantine, reasons = self._quarantine(cleaned, written)
        return self._manifest(cleaned, written, sums, tokenizer, quarantine, reasons)

    def _clean(self) -> SourceCounts:
        """Pass 1."""
        counts = SourceCounts()
        judged = False
        work = CleanSlice(
            self.source,
            self.slices,
            self.rules,
            self.shuffle,
            keeps_rejected=self.addition.keeps_rejected,
            counts_words=self.base is None and self.config.tokenizer is None,
        )
        results = map_in_order(work, len(self.slices))
        for number, result in enumerate(results):
            found = json.loads(result)
            counts.read += found["read"]
            counts.accepted += found["accepted"]
            counts.reasons.update(found["reasons"])
            counts.digest = add_digests([counts.digest, int(found["digest"], 16)])
            counts.rejected_paths += [rejected_path(self.staging, number, i) for i in range(found["rejected_files"])]
            counts.words.update(found["words"])
            _forget_rare(counts.words)
            if self._on_progress is not None:
                self._on_progress(counts.read, self.num_records)
            if not judged and counts.read >= FIRST_JUDGEMENT_RECORDS:
                judged = True
                if self._too_many(counts):
                    break
        results.close()
        self._judge(counts)
        return counts

    def _judge(self, counts: SourceCounts) -> None:
        if counts.read != counts.accepted + counts.rejected:
            raise RuntimeError(f"{counts.read} records read, {counts.accepted} + {counts.rejected} accounted for")
        quarantine = storage.join(self.out, QUARANTINE_FOLDER)
        name = self.source.name
        if self._too_many(counts):
            self._gather_rejected(counts)
            raise TooManyRejected(name, quarantine, counts, self.config.max_rejected_ratio)
        if counts.read != self.num_records:
            raise ValueError(
                f"{name} held {self.num_records} records at first and {counts.read} when read; "
                f"prepare it again once nothing writes to it"
            )
        if counts.accepted == 0 and self.base is None:
            self._gather_rejected(counts)
            raise ValueError(f"none of the {counts.read} records of {name} was accepted; look into {quarantine}")

    def _too_many(self, counts: SourceCounts) -> bool:
        return counts.rejected > self.config.max_rejected_ratio * counts.read

    def _gather_rejected(self, counts: SourceCounts) -> None:
        gather_quarantine(read_quarantine(counts.rejected_paths), self.out, self._quarantine_name(Stage.CLEAN))

    def _tokenizer(self, words: Counter[str]) -> TextTokenizer:
        """The set's; for the first generation the given one, or one trained on its words."""
        if self.base is not None:
            return load_tokenizer(storage.join(self.out, TOKENIZER_FOLDER))
        if self.config.tokenizer is not None:
            tokenizer = load_tokenizer(storage.absolute(self.config.tokenizer))
        elif words:
            tokenizer = train_tokenizer(words, self.config.vocabulary_size)
        else:
            raise ValueError(
                f"{self.source.name} has no accepted records in split {TRAIN}; expected some to train the "
                f"vocabulary on: check the split column, or leave it out with records of your own split"
            )
        for name, content in tokenizer.files().items():
            storage.write_bytes_atomically(storage.join(self.out, TOKENIZER_FOLDER, name), content)
        return tokenizer

    def _write(self, tokenizer: TextTokenizer) -> tuple[_Written, TrainSums]:
        """Pass 2."""
        size = self.rules.image.size
        written = _Written()
        sums = TrainSums(np.zeros(tokenizer.vocab_size, np.int64))
        leftovers: dict[str, list[int]] = {split: [] for split in SPLITS}
        has_attributes = bool(self.config.attribute_columns)
        writer = ShardWriter(self.out, self.staging, self.generation, self.config.max_tokens, size, has_attributes)
        earlier = {} if self.base is None else self.base.splits
        work = WriteBucket(writer, self.shuffle, earlier)
        with _Syncing(self.out) as syncing:
            for bucket, result in enumerate(map_in_order(work, self.shuffle.num_buckets)):
                found = json.loads(result)
                for split in SPLITS:
                    shard, records = found["shards"].get(split), found["num_records"][split]
                    written.num_records[split] += records
                    if shard is not None:
                        written.shards[split].append(Shard(**shard))
                        syncing.add(shard["path"])
                    if records > (0 if shard is None else shard["num_records"]):
                        leftovers[split].append(bucket)
                sums.add(TrainSums(np.array(found["piece_counts"]), np.array(found["pixel_sums"]), found["num_pixels"]))
                written.num_cut += found["num_cut"]
                if found["num_duplicates"]:
                    written.duplicates_paths.append(duplicates_path(self.staging, bucket))
            for split in SPLITS:
                tail = writer.write_tail(split, leftovers[split])
                written.shards[split] += tail
                for shard in tail:
                    syncing.add(shard.path)
        return written, sums

    def _quarantine(self, cleaned: SourceCounts, written: _Written) -> tuple[list[StoredFile], Counter[str]]:
        """All quarantine files of the set with this generation, and how often they give each reason."""
        reasons: Counter[str] = Counter()

        def counted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
            for table in tables:
                reasons.update(table["reason"].to_pylist())
                yield table

        files: list[StoredFile] = []
        for stage, paths in ((Stage.CLEAN, cleaned.rejected_paths), (Stage.DEDUPLICATE, written.duplicates_paths)):
            tables = counted(read_quarantine(paths))
            files += gather_quarantine(tables, self.out, self._quarantine_name(stage))
        if self.base is None:
            return files, reasons
        if self.addition.kind != "requeue":
            return [*self.base.quarantine, *files], reasons + Counter(self.base.counts.reasons)
        # What was read again has its row in the new files, or is in a shard now.
        before = read_quarantine(storage.join(self.out, file.path) for file in self.base.quarantine)
        rest = counted(_without(before, self.addition.requeued))
        return [*gather_quarantine(rest, self.out, f"g{self.generation:04d}-rest"), *files], reasons

    def _manifest(
        self,
        cleaned: SourceCounts,
        written: _Written,
        sums: TrainSums,
        tokenizer: TextTokenizer,
        quarantine: list[StoredFile],
        reasons: Counter[str],
    ) -> Manifest:
        base = self.base
        accepted = written.num_records.total()
        generation = Generation(
            kind=self.addition.kind,
            source=source_label(self.source.name),
            source_sha256=digest_text(cleaned.digest),
            read=cleaned.read,
            accepted=accepted,
        )
        generations = (*(() if base is None else base.generations), generation)
        counts = self._counts(cleaned, written, reasons)
        splits = {split: self._split(split, written) for split in SPLITS}
        files = _tokenizer_files(tokenizer) if base is None else base.tokenizer
        columns = self.source.columns.by_role() if base is None else base.columns
        config = portable(self.config) if base is None else base.config
        parts = [
            *(FORMAT, OLDEST_VERSION, deciding(config), columns, [file.sha256 for file in files]),
            [(each.kind, each.source_sha256) for each in generations],
        ]
        size = self.rules.image.size
        return Manifest(
            fingerprint=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
            generations=generations,
            config=config,
            keeps_rejected=self.addition.keeps_rejected,
            columns=columns,
            counts=counts,
            splits=splits,
            shard_schema={column.name: str(column.type) for column in shard_schema(bool(config.attribute_columns))},
            quarantine=tuple(quarantine),
            tokenizer=tuple(files),
            row_group_records=row_group_records(size),
            image=StoredImage(size=size, encoding=self.rules.image_encoding),  # type: ignore[arg-type]
            text=StoredText(max_tokens=self.config.max_tokens, vocab_size=tokenizer.vocab_size),
            statistics=sums.statistics() if base is None else base.statistics,
            generated=self.source.generated if base is None else base.generated,
            libraries=library_versions(),
        )

    def _counts(self, cleaned: SourceCounts, written: _Written, reasons: Counter[str]) -> Counts:
        base = self.base
        newly_read = 0 if self.addition.kind == "requeue" else cleaned.read
        duplicates = reasons[Reason.DUPLICATE_KEY.value]
        counts = Counts(
            read=newly_read + (0 if base is None else base.counts.read),
            accepted=written.num_records.total() + (0 if base is None else base.counts.accepted),
            rejected=reasons.total() - duplicates,
            duplicates=duplicates,
            cut_texts=written.num_cut + (0 if base is None else base.counts.cut_texts),
            reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        )
        if counts.read != counts.accepted + counts.rejected + counts.duplicates:
            raise RuntimeError(f"a record was lost: {counts}")
        return counts

    def _split(self, split: str, written: _Written) -> Split:
        before = Split(num_records=0, shards=()) if self.base is None else self.base.splits[split]
        return Split(
            num_records=before.num_records + written.num_records[split],
            shards=(*before.shards, *written.shards[split]),
        )

    def _quarantine_name(self, stage: Stage) -> str:
        return f"g{self.generation:04d}-{stage.value}" if self.generation else stage.value


class _Syncing:
    """Brings files of a set to the disk while others are still written; all of them are there when the block ends.

    The driver may ask for it in place of who wrote them: closing a file on a shared disk sends it to its server.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._pool = ThreadPoolExecutor(_SYNCING_THREADS)
        self._begun: deque[Future[None]] = deque()

    def __enter__(self) -> _Syncing:
        return self

    def add(self, path: str) -> None:
        """Sync the file `path` of the set; raises StorageError where an earlier one could not be."""
        while self._begun and self._begun[0].done():
            self._begun.popleft().result()
        self._begun.append(self._pool.submit(storage.sync, storage.join(self._out, path)))

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for begun in self._begun:
                begun.result()


def _tokenizer_files(tokenizer: TextTokenizer) -> list[StoredFile]:
    """The tokenizer's files as a manifest names them."""
    return [
        StoredFile(path=f"{TOKENIZER_FOLDER}/{name}", num_bytes=len(content), sha256=storage.sha256_of(content))
        for name, content in sorted(tokenizer.files().items())
    ]


def _without(tables: Iterator[pa.Table], places: frozenset[Place]) -> Iterator[pa.Table]:
    for table in tables:
        yield table.filter(pa.array([place not in places for place in places_of(table)], pa.bool_()))


def _forget_rare(words: Counter[str]) -> None:
    """Keep the more frequent half once there are too many; the same words in the same order leave the same."""
    if len(words) <= MAX_DISTINCT_WORDS:
        return
    kept = sorted(words.items(), key=lambda item: (-item[1], item[0]))[: MAX_DISTINCT_WORDS // 2]
    words.clear()
    words.update(dict(kept))


def regroup(shuffle: Shuffle) -> None:
    """The stage between the passes, where there is one."""
    for _ in map_in_order(Regroup(shuffle), shuffle.num_pieces):
        pass
