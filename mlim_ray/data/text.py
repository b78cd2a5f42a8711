"""Texts of unknown origin in, clean strings out."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from mlim_ray.data.rejection import Problem, Reason

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f]")
_SPACE = re.compile(r"\s+")
# Normalising a hostile text may shrink it (removed controls, collapsed spaces), but reading all of it is
# not needed.
_RAW_MARGIN = 8


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
    raw = decoded[: max_characters * _RAW_MARGIN]
    text = _SPACE.sub(" ", _CONTROL.sub("", unicodedata.normalize("NFC", raw))).strip()
    if not any(unicodedata.category(character)[0] not in "CZ" for character in text):
        return Problem(Reason.EMPTY_TEXT, "no visible character")
    was_cut = len(text) > max_characters or len(raw) < len(decoded)
    return CleanText(text[:max_characters].rstrip(), was_cut)
