"""Texts of unknown origin in, clean strings out."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from mlim_ray.data.rejection import Problem, Reason

# Control characters, and marks that are never seen but turn the direction of what follows or begin a file.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SPACE = re.compile(r"\s+")
# Normalising a hostile text may shrink it (removed controls, collapsed spaces), but reading all of it is
# not needed.
_RAW_MARGIN = 8
# The "stream-safe" bound of Unicode's UAX 15: putting more marks into order takes time of their square.
_MAX_MARKS = 30
# Letters and symbols by their category, of which nothing is to be seen: fillers of Korean and a blank of Braille.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")


@dataclass(frozen=True)
class CleanText:
    """A cleaned text, and whether it was longer than allowed."""

    text: str
    was_cut: bool


def decode_utf8(value: bytes | str) -> str | Problem:
    """`value` as a string that can be written as UTF-8."""
    try:
        # A string from Python may hold lone surrogates, which no file takes.
        return (value.encode() if isinstance(value, str) else value).decode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        return Problem(Reason.INVALID_UTF8, f"{error.reason} at position {error.start}")


def clean_text(value: bytes | str | None, max_characters: int) -> CleanText | Problem:
    """NFC, no control characters, single spaces, cut at `max_characters`; or what is wrong with it."""
    if value is None:
        return Problem(Reason.EMPTY_TEXT, "null")
    decoded = decode_utf8(value)
    if isinstance(decoded, Problem):
        return decoded
    decoded = decoded.strip()
    raw = decoded[: max_characters * _RAW_MARGIN]
    was_cut = len(raw) < len(decoded)
    raw = _CONTROL.sub("", raw)
    if not raw.isascii():
        safe = _with_few_marks(raw)
        was_cut = was_cut or len(safe) < len(raw)
        raw = unicodedata.normalize("NFC", safe)
    spaced = _SPACE.sub(" ", raw).strip()
    text = spaced[:max_characters].rstrip()
    if not any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK for c in text):
        return Problem(Reason.EMPTY_TEXT, "no visible character")
    return CleanText(text, was_cut or len(spaced) > max_characters)


def _with_few_marks(text: str) -> str:
    """`text` without the combining marks that follow _MAX_MARKS others."""
    kept, num_marks = [], 0
    for character in text:
        num_marks = num_marks + 1 if unicodedata.combining(character) else 0
        if num_marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)
