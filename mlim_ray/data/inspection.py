"""What a source holds, from a sample and without Ray: shown before any time is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, RawRecord, clean
from mlim_ray.data.images import image_facts
from mlim_ray.data.sources import Slice, Source, open_source

_SAMPLED_PLACES = 10
_SHOWN = 6


@dataclass(frozen=True)
class Inspection:
    """A source and a sample of it; counts are of the sample unless they say otherwise."""

    source: str
    format: str
    num_records: int
    """records of the whole source"""
    column_types: dict[str, str]
    columns: dict[str, str]
    """role to column"""
    num_sampled: int
    num_accepted: int
    reasons: dict[str, int]
    """rejected records by reason, the commonest first"""
    image_kinds: dict[str, int]
    """format and mode of the pictures"""
    image_sides: dict[str, int]
    """width x height of the pictures"""
    text_characters: tuple[int, int, int]
    """shortest, median and longest accepted text"""
    num_cut: int
    """texts longer than allowed"""
    labels: dict[str, int]
    splits: dict[str, int]

    def lines(self) -> list[str]:
        """The inspection for a person, line by line."""
        by_column = {name: role for role, name in self.columns.items()}
        shown = [
            f"{name} ({kind}{', used as ' + by_column[name] if name in by_column else ''})"
            for name, kind in self.column_types.items()
        ]
        shortest, median, longest = self.text_characters
        rejected = self.num_sampled - self.num_accepted
        return [
            f"source    {self.source}",
            f"format    {self.format}, {self.num_records:,} records",
            f"columns   {', '.join(shown)}",
            f"sample    {self.num_sampled:,} records, from the whole source",
            f"pictures  {_counted(self.image_kinds)}; {_counted(self.image_sides)}",
            f"texts     {shortest} to {longest} characters, median {median}; {self.num_cut} too long, cut",
            f"labels    {_counted(self.labels) or 'none'}",
            f"splits    {_counted(self.splits)}",
            f"rejected  {rejected} of {self.num_sampled}{': ' if rejected else ''}{_counted(self.reasons)}",
        ]


def inspect(source: str, config: PrepareConfig, num_sampled: int = 1_000) -> Inspection:
    """Look at about `num_sampled` records from evenly spaced places; `config` is resolved.

    Raises ValueError as `open_source` does.
    """
    opened = open_source(source, config)
    slices = opened.slices()
    rules = CleaningRules.of(config, opened.columns.split is not None)
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    sides: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    lengths: list[int] = []
    sampled = num_cut = 0
    for records in _sample(opened, slices, num_sampled):
        sampled += len(records)
        for record in records:
            kind, side = _image_kind(record)
            kinds[kind] += 1
            sides.update([side] if side else [])
        cleaned = clean(records, rules)
        reasons.update(record.reason.value for record in cleaned.rejected)
        labels.update(record.label for record in cleaned.accepted if record.label is not None)
        splits.update(record.split for record in cleaned.accepted)
        lengths += [len(record.text) for record in cleaned.accepted]
        num_cut += sum(record.was_cut for record in cleaned.accepted)
    return Inspection(
        source=opened.name,
        format=opened.format,
        num_records=sum(part.stop - part.start for part in slices),
        column_types=opened.column_types,
        columns=opened.columns.by_role(),
        num_sampled=sampled,
        num_accepted=len(lengths),
        reasons=dict(reasons.most_common()),
        image_kinds=dict(kinds.most_common()),
        image_sides=dict(sides.most_common()),
        text_characters=(min(lengths), int(np.median(lengths)), max(lengths)) if lengths else (0, 0, 0),
        num_cut=num_cut,
        labels=dict(labels.most_common()),
        splits=dict(splits.most_common()),
    )


def _sample(source: Source, slices: list[Slice], num_sampled: int) -> Iterator[list[RawRecord]]:
    num_places = min(_SAMPLED_PLACES, len(slices))
    chosen = [slices[i * len(slices) // num_places] for i in range(num_places)]
    for i, part in enumerate(chosen):
        wanted = num_sampled * (i + 1) // num_places - num_sampled * i // num_places
        stop = min(part.stop, part.start + wanted)
        if stop > part.start:
            yield from source.read(Slice(part.file, part.start, stop))


def _image_kind(record: RawRecord) -> tuple[str, str | None]:
    """Format and mode, and width x height, as far as the header tells."""
    if isinstance(record.image, np.ndarray):
        return "decoded RGB", f"{record.image.shape[1]} x {record.image.shape[0]}"
    facts = image_facts(record.image) if isinstance(record.image, bytes) else None
    if facts is None:
        return "no picture", None
    kind, mode, width, height = facts
    return f"{kind} {mode}", f"{width} x {height}"


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
