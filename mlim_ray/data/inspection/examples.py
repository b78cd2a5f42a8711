"""A few records of a sample to look at: as they would be stored, or as far as they can be shown."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np
from PIL import Image

from mlim_ray.data.cleaning import AcceptedRecord, CleaningRules, RawRecord
from mlim_ray.data.images import ImageRules, Pixels, decode_image, decode_stored, fit_pixels, image_facts
from mlim_ray.data.rejection import Problem, RejectedRecord, shorten

THUMBNAIL_SIDE = 128
"""larger stored pictures are scaled down to it, so that a page of them stays small"""
MAX_KEY_CHARACTERS = 80
MAX_TEXT_CHARACTERS = 160
# Up to this side every stored pixel is kept as it is.
_LOSSLESS_SIDE = 64
_JPEG_QUALITY = 85
# Bytes of a raw text that are looked at to show its beginning.
_TEXT_BYTES = 1_000

Item = TypeVar("Item")


@dataclass(frozen=True)
class Thumbnail:
    """A small encoded picture that we made ourselves."""

    content: bytes
    kind: Literal["png", "jpeg"]


@dataclass(frozen=True)
class Example:
    """One record; texts are shortened, and may hold anything."""

    source: str
    row: int
    key: str | None
    text: str
    label: str | None
    split: str | None
    picture: str
    """what the picture is, in words"""
    thumbnail: Thumbnail | None
    """None where nothing can be decoded within the bounds"""
    reason: str | None = None
    """None for an accepted record"""
    detail: str = ""


class EvenlySpaced(Generic[Item]):
    """At most `limit` items, evenly spaced over a stream whose length is not known beforehand."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stride = 1
        self._num_seen = 0
        self._kept: list[Item] = []

    def offer(self, make: Callable[[], Item]) -> None:
        """The next item of the stream, made only if it is wanted."""
        if self._num_seen % self._stride == 0 and self._limit:
            self._kept.append(make())
            if len(self._kept) == 2 * self._limit:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._num_seen += 1

    def items(self, limit: int | None = None) -> list[Item]:
        """The chosen items in the order of the stream, at most `limit` of them."""
        count = min(len(self._kept), self._limit if limit is None else limit)
        return [self._kept[i * len(self._kept) // count] for i in range(count)]


def accepted_example(record: AcceptedRecord, rules: CleaningRules, picture: str) -> Example:
    """An accepted record, its picture as it is stored."""
    stored = decode_stored(record.image, rules.image.size, rules.image_encoding)
    return Example(
        record.source,
        record.row,
        shorten(record.key, MAX_KEY_CHARACTERS),
        shorten(record.text, MAX_TEXT_CHARACTERS),
        None if record.label is None else shorten(record.label, MAX_KEY_CHARACTERS),
        record.split,
        picture,
        thumbnail_of(stored),
    )


def rejected_example(raw: RawRecord, rejected: RejectedRecord, rules: CleaningRules, picture: str) -> Example:
    """A rejected record; its whole picture where that can be decoded within the bounds of `rules`."""
    return Example(
        rejected.source,
        rejected.row,
        None if rejected.key is None else shorten(rejected.key, MAX_KEY_CHARACTERS),
        _shown_text(raw.text),
        None,
        None,
        picture,
        _whole_picture(raw, rules.image),
        rejected.reason.value,
        rejected.detail,
    )


def thumbnail_of(pixels: Pixels) -> Thumbnail:
    """Square uint8 [S, S, 3] pixels as a small picture; unchanged up to 64 pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    buffer = io.BytesIO()
    if image.width <= _LOSSLESS_SIDE:
        image.save(buffer, "PNG")
        return Thumbnail(buffer.getvalue(), "png")
    if image.width > THUMBNAIL_SIDE:
        image = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Thumbnail(buffer.getvalue(), "jpeg")


def _whole_picture(raw: RawRecord, rules: ImageRules) -> Thumbnail | None:
    # A picture that is too small or too long to be stored can still be looked at; a tiny one pixel by pixel.
    if isinstance(raw.image, bytes):
        facts = image_facts(raw.image)
        longest = THUMBNAIL_SIDE if facts is None else max(facts[2:])
    elif isinstance(raw.image, np.ndarray):
        longest = max(raw.image.shape[:2])
    else:
        return None
    relaxed = replace(rules, size=max(1, min(longest, THUMBNAIL_SIDE)), fit="letterbox", min_side=1)
    pixels = decode_image(raw.image, relaxed) if isinstance(raw.image, bytes) else fit_pixels(raw.image, relaxed)
    return None if isinstance(pixels, Problem) else thumbnail_of(pixels)


def _shown_text(text: bytes | str | None) -> str:
    if text is None:
        return ""
    start = text[:_TEXT_BYTES]
    shown = start.decode("utf-8", "replace") if isinstance(start, bytes) else start.encode("utf-8", "replace").decode()
    return shorten(shown, MAX_TEXT_CHARACTERS)
