"""One raw record in, one accepted or rejected record out (contract C4): a pure function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.counter import hash_key, unit
from mlim_ray.data.images import ImageRules, Pixels, decode_image, encode_stored, fit_pixels
from mlim_ray.data.rejection import Problem, Reason, RejectedRecord, Stage, shorten
from mlim_ray.data.text import clean_text, decode_utf8

SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
"""what a source may call a split, in lower case"""
# Shares of a set without a split column, as upper ends in [0, 1) (the usual 80/10/10).
_SPLIT_ENDS = (("train", 0.8), ("val", 0.9), ("test", 1.0))
_SPLIT_COUNTER = 0x5B117

RawValue = bytes | str | int | None
"""A key, label, group or split as a source gives it."""


@dataclass(frozen=True)
class RawRecord:
    """One record as a source gives it: nothing is decoded or checked."""

    source: str
    """file, relative to the source"""
    row: int
    """row in that file, from 0"""
    key: RawValue
    image: bytes | Pixels | Problem | None
    """encoded bytes, decoded uint8 [H, W, 3], or why there is none"""
    text: bytes | str | None
    label: RawValue = None
    group: RawValue = None
    split: RawValue = None
    problem: Problem | None = None
    """why the row as a whole could not be read"""


@dataclass(frozen=True)
class AcceptedRecord:
    """One record that goes on: a stored picture, a clean text, a key and a split."""

    source: str
    row: int
    key: str
    key_hash: int
    image: bytes
    pixel_sums: NDArray[np.int64]
    """sum over the picture's pixels of each channel, then of each channel's square: 6 values"""
    text: str
    was_cut: bool
    label: str | None
    group: str | None
    split: str


@dataclass(frozen=True)
class CleaningRules:
    """What decides over a record."""

    image: ImageRules
    image_encoding: str
    max_text_characters: int
    has_split: bool
    """whether the source names splits; else they are drawn from a hash of the group or key"""

    @classmethod
    def of(cls, config: PrepareConfig, has_split: bool) -> CleaningRules:
        """The rules of a resolved config. Raises ValueError if it still holds an auto."""
        if config.image_size == "auto" or config.image_encoding == "auto":
            raise ValueError("image_size and image_encoding are auto; expected a resolved config")
        image = ImageRules(
            size=config.image_size,
            fit=config.fit,
            background_colour=config.background_colour,
            min_side=config.min_image_side,
            max_pixels=config.max_image_pixels,
        )
        return cls(image, config.image_encoding, config.max_text_characters, has_split)


@dataclass
class Cleaned:
    """Every record of a batch, in exactly one of two lists, each in the batch's order."""

    accepted: list[AcceptedRecord] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)


def clean(records: Iterable[RawRecord], rules: CleaningRules) -> Cleaned:
    """Accept or reject each record; the first thing wrong with it, cheapest check first, is its reason."""
    cleaned = Cleaned()
    for record in records:
        result = _clean_record(record, rules)
        if isinstance(result, AcceptedRecord):
            cleaned.accepted.append(result)
        else:
            key = _as_string(record.key)
            was_read = result is not record.problem and result is not record.image
            cleaned.rejected.append(
                RejectedRecord(
                    key if isinstance(key, str) else None,
                    record.source,
                    record.row,
                    Stage.CLEAN if was_read else Stage.READ,
                    result.reason,
                    result.detail,
                )
            )
    return cleaned


def _clean_record(record: RawRecord, rules: CleaningRules) -> AcceptedRecord | Problem:
    if record.problem is not None:
        return record.problem
    key = _as_string(record.key)
    if key is None or (isinstance(key, str) and not key.strip()):
        return Problem(Reason.NULL_KEY, "null" if key is None else "empty")
    label, group = _as_string(record.label), _as_string(record.group)
    for name, value in (("key", key), ("label", label), ("group", group)):
        if isinstance(value, Problem):
            return Problem(value.reason, f"{name}: {value.detail}")
    assert isinstance(key, str) and not isinstance(label, Problem) and not isinstance(group, Problem)
    # An empty group joins nothing.
    group = group or None
    split = _named_split(record.split) if rules.has_split else _drawn_split(group or key)
    if isinstance(split, Problem):
        return split
    text = clean_text(record.text, rules.max_text_characters)
    if isinstance(text, Problem):
        return text
    pixels = _pixels(record.image, rules.image)
    if isinstance(pixels, Problem):
        return pixels
    return AcceptedRecord(
        source=record.source,
        row=record.row,
        key=key,
        key_hash=hash_key(key),
        image=encode_stored(pixels, rules.image_encoding),
        pixel_sums=_pixel_sums(pixels),
        text=text.text,
        was_cut=text.was_cut,
        label=label,
        group=group,
        split=split,
    )


def _as_string(value: RawValue) -> str | Problem | None:
    if isinstance(value, (bytes, str)):
        return decode_utf8(value)
    return None if value is None else str(value)


def _named_split(value: RawValue) -> str | Problem:
    name = _as_string(value)
    if isinstance(name, str):
        found = SPLIT_NAMES.get(name.strip().lower())
        if found is not None:
            return found
    given = "null" if name is None else name.detail if isinstance(name, Problem) else shorten(name, 50)
    return Problem(Reason.UNKNOWN_SPLIT, f"{given}; expected one of {', '.join(SPLIT_NAMES)}")


def _drawn_split(identity: str) -> str:
    value = float(unit(hash_key(identity), _SPLIT_COUNTER))
    return next(split for split, end in _SPLIT_ENDS if value < end)


def _pixels(image: bytes | Pixels | Problem | None, rules: ImageRules) -> Pixels | Problem:
    if image is None:
        return Problem(Reason.MISSING_PICTURE, "null")
    if isinstance(image, Problem):
        return image
    return decode_image(image, rules) if isinstance(image, bytes) else fit_pixels(image, rules)


def _pixel_sums(pixels: Pixels) -> NDArray[np.int64]:
    values = pixels.reshape(-1, 3).astype(np.int64)
    return np.concatenate([values.sum(0), (values * values).sum(0)])
