"""Looks at a sample of a source, record by record, with the very function that `prepare` cleans with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import AcceptedRecord, CleaningRules, RawRecord, clean
from mlim_ray.data.counter import hash_key
from mlim_ray.data.inspection.estimate import Estimate, estimate
from mlim_ray.data.inspection.examples import (
    MAX_KEY_CHARACTERS,
    EvenlySpaced,
    Example,
    accepted_example,
    rejected_example,
)
from mlim_ray.data.inspection.facts import Inspection, Rejection
from mlim_ray.data.inspection.hints import hints_of
from mlim_ray.data.inspection.pictures import PictureSurvey
from mlim_ray.data.inspection.sample import plan_sample
from mlim_ray.data.inspection.texts import TextSurvey
from mlim_ray.data.rejection import RejectedRecord, shorten
from mlim_ray.data.sources import Slice, Source, open_source
from mlim_ray.data.sources.generated import GeneratedSource
from mlim_ray.data.sources.listing import num_files
from mlim_ray.data.sources.prepared_files import PreparedSource
from mlim_ray.data.sources.source import SLICE_RECORDS

DEFAULT_SAMPLE = 1_000
_MAX_TIMED_BYTES = 64_000_000
_MAX_TIMED_S = 2.0


def inspect(
    source: str,
    config: PrepareConfig,
    num_sampled: int = DEFAULT_SAMPLE,
    *,
    num_examples: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look at about `num_sampled` records from evenly spaced places; `config` is resolved.

    The same source and arguments give the same facts, but for the estimate's times. What is held in memory
    does not grow with the source, only with `num_sampled`.

    Args:
        source: as `open_source` takes it.
        config: how it would be prepared.
        num_sampled: at least 1.
        num_examples: accepted records, and rejected ones, to keep with a small picture.
        on_progress: told how many records of how many are done.

    Raises:
        ValueError: as `open_source` and `load_tokenizer` do, and for `num_sampled` below 1.
    """
    if num_sampled < 1:
        raise ValueError(f"a sample of {num_sampled} records; expected a whole number above 0")
    texts = TextSurvey(config)
    opened = open_source(source, config)
    slices = opened.slices()
    num_records = sum(part.stop - part.start for part in slices)
    files = None if isinstance(opened, GeneratedSource) else opened.identity
    num_bytes = None if files is None else sum(size for _, size, _ in files)
    bytes_per_record = (num_bytes or 0) / num_records
    parts = plan_sample(slices, num_sampled, bytes_per_record, is_remote=storage.is_remote(source))
    rules = CleaningRules.of(config, opened.columns.split is not None)
    sample = _Sample(rules, PictureSurvey(rules.image.size, rules.image.max_aspect_ratio), texts, num_examples)
    num_planned = sum(part.stop - part.start for part in parts)
    # Reading a few records of a slice costs more a record than reading all of it.
    read_s = None if files is None or parts == slices else _time_reading(opened, slices[0])
    for part in parts:
        for num_done in sample.read(opened, part):
            if on_progress is not None:
                on_progress(num_done, num_planned)
    found = Inspection(
        source=opened.name,
        format=opened.format,
        num_files=None if files is None else num_files(files),
        num_bytes=num_bytes,
        num_records=num_records,
        column_types=opened.column_types,
        columns=opened.columns.by_role(),
        image_size=rules.image.size,
        image_encoding=rules.image_encoding,
        fit=rules.image.fit,
        extreme_fit=rules.image.extreme_fit,
        num_sampled=sample.num_read,
        num_places=len(parts),
        num_accepted=sample.num_accepted,
        max_rejected_ratio=config.max_rejected_ratio,
        reasons=dict(sample.reasons.most_common()),
        rejections=tuple(
            replace(sample.rejections[reason], count=count) for reason, count in sample.reasons.most_common()
        ),
        pictures=sample.pictures.facts(),
        texts=texts.facts(),
        labels=dict(sample.labels.most_common()),
        splits=dict(sample.splits.most_common()),
        num_repeated_keys=sample.num_repeated,
        repeated_key=sample.repeated_key,
        num_groups=len(sample.groups),
        num_groups_across=sum(len(splits) > 1 for splits in sample.groups.values()),
        estimate=sample.estimate(num_records, read_s, config.tokenizer is None),
        prepared=_manifest_facts(opened),
        hints=(),
        accepted_examples=tuple(sample.accepted_examples.items()),
        rejected_examples=sample.rejected_examples(),
        attributes=opened.columns.attributes,
    )
    return replace(found, hints=tuple(hints_of(found)))


@dataclass
class _Sample:
    """What was seen so far."""

    rules: CleaningRules
    pictures: PictureSurvey
    texts: TextSurvey
    num_examples: int
    num_read: int = 0
    num_accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rejections: dict[str, Rejection] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    groups: dict[int, set[str]] = field(default_factory=dict)
    num_repeated: int = 0
    repeated_key: str | None = None

    def __post_init__(self) -> None:
        self._keys: set[int] = set()
        self._read_s = self._clean_s = 0.0
        self._image_bytes = self._text_bytes = 0
        self.accepted_examples: EvenlySpaced[Example] = EvenlySpaced(self.num_examples)
        self._rejected: dict[str, EvenlySpaced[Example]] = {}

    def read(self, source: Source, part: Slice) -> Iterator[int]:
        """Look at a part of the source; gives the number of records done after each batch."""
        batches = source.read(part)
        while True:
            started = time.perf_counter()
            records = next(batches, None)
            self._read_s += time.perf_counter() - started
            if records is None:
                return
            for record in records:
                self._look(record)
            yield self.num_read

    def _look(self, raw: RawRecord) -> None:
        picture = self.pictures.add(raw)
        started = time.perf_counter()
        cleaned = clean((raw,), self.rules)
        self._clean_s += time.perf_counter() - started
        self.num_read += 1
        for accepted in cleaned.accepted:
            self._accept(accepted)
            self.accepted_examples.offer(partial(accepted_example, accepted, self.rules, picture))
        for rejected in cleaned.rejected:
            self._reject(rejected)
            examples = self._rejected.setdefault(rejected.reason.value, EvenlySpaced(self.num_examples))
            examples.offer(partial(rejected_example, raw, rejected, self.rules, picture))

    def _accept(self, record: AcceptedRecord) -> None:
        self.num_accepted += 1
        self._image_bytes += len(record.image)
        self._text_bytes += len(record.text.encode())
        self.texts.add(record.text, record.split, record.was_cut)
        self.splits[record.split] += 1
        if record.label is not None:
            self.labels[shorten(record.label, MAX_KEY_CHARACTERS)] += 1
        if record.group is not None:
            self.groups.setdefault(hash_key(record.group), set()).add(record.split)
        if record.key_hash in self._keys:
            self.num_repeated += 1
            self.repeated_key = self.repeated_key or shorten(record.key, MAX_KEY_CHARACTERS)
        self._keys.add(record.key_hash)

    def _reject(self, record: RejectedRecord) -> None:
        reason = record.reason.value
        self.reasons[reason] += 1
        key = None if record.key is None else shorten(record.key, MAX_KEY_CHARACTERS)
        self.rejections.setdefault(reason, Rejection(reason, 0, key, record.source, record.row, record.detail))

    def rejected_examples(self) -> tuple[Example, ...]:
        """Examples of every reason, the commonest first, the same number of each as far as there are."""
        shares = dict.fromkeys(self._rejected, 0)
        kept = {reason: len(examples.items()) for reason, examples in self._rejected.items()}
        for _ in range(min(self.num_examples, sum(kept.values()))):
            reason = min((r for r in shares if shares[r] < kept[r]), key=lambda r: shares[r])
            shares[reason] += 1
        return tuple(
            example
            for reason, _ in self.reasons.most_common()
            for example in self._rejected[reason].items(shares[reason])
        )

    def estimate(self, num_records: int, read_s: float | None, trains_vocabulary: bool) -> Estimate | None:
        """For a source of so many records, `read_s` seconds each to read; None where nothing was accepted."""
        if not self.num_accepted:
            return None
        return estimate(
            num_records=num_records,
            accepted_ratio=self.num_accepted / self.num_read,
            read_s=self._read_s / self.num_read if read_s is None else read_s,
            clean_s=self._clean_s / self.num_read,
            image_bytes=self._image_bytes / self.num_accepted,
            text_bytes=self._text_bytes / self.num_accepted,
            trains_vocabulary=trains_vocabulary,
        )


def _time_reading(source: Source, part: Slice) -> float:
    """Seconds a record to read the beginning of a slice, which `prepare` reads as a whole."""
    num_read = num_bytes = 0
    started = time.perf_counter()
    for records in source.read(Slice(part.file, part.start, min(part.stop, part.start + SLICE_RECORDS))):
        num_read += len(records)
        num_bytes += sum(len(record.image) for record in records if isinstance(record.image, bytes))
        if num_bytes > _MAX_TIMED_BYTES or time.perf_counter() - started > _MAX_TIMED_S:
            break
    return (time.perf_counter() - started) / max(1, num_read)


def _manifest_facts(source: Source) -> dict[str, Any] | None:
    """The manifest of a prepared set, its lists of files condensed to how many there are."""
    if not isinstance(source, PreparedSource):
        return None
    return {name: _condensed(value) for name, value in source.prepared.manifest.model_dump(mode="json").items()}


def _condensed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _condensed(inner) for name, inner in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        sizes = [item["num_bytes"] for item in value if "num_bytes" in item]
        return {"count": len(value)} | ({"num_bytes": sum(sizes)} if sizes else {})
    return value
