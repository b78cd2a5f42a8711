"""Why a record does not get into a prepared set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_DETAIL_CHARACTERS = 300
"""details are cut there: a hostile record must not fill the quarantine"""


class Stage(StrEnum):
    """Where a record left the way."""

    READ = "read"
    CLEAN = "clean"
    DEDUPLICATE = "deduplicate"


class Reason(StrEnum):
    """What was wrong with a record. Every record that is not accepted has exactly one reason."""

    MALFORMED_ROW = "malformed_row"
    """a row of a table that cannot be read: another number of fields than the header, a line that is no JSON object"""
    WRONG_TYPE = "wrong_type"
    """a value that cannot be a key, text, label, group, split or picture: a float (NaN too), a list, a date"""
    NULL_KEY = "null_key"
    """no key, or an empty one"""
    INVALID_UTF8 = "invalid_utf8"
    """text, key, label, group or attribute is no valid UTF-8"""
    TOO_LONG = "too_long"
    """a key, label, group or attribute of more than 1,024 characters, or any value too long to be read"""
    UNKNOWN_SPLIT = "unknown_split"
    """the split is none of train, val, test"""
    EMPTY_TEXT = "empty_text"
    """no text, or no visible character in it"""
    MISSING_PICTURE = "missing_picture"
    """no picture bytes, or a path where no picture is"""
    PATH_OUTSIDE_FOLDER = "path_outside_folder"
    """a picture path that leaves the image folder, or a URL"""
    TOO_MANY_BYTES = "too_many_bytes"
    """an encoded picture too large to be read"""
    UNREADABLE_PICTURE = "unreadable_picture"
    """bytes that are no picture of an allowed format, or a broken one"""
    TRUNCATED_PICTURE = "truncated_picture"
    """a picture whose data ends early"""
    TOO_MANY_PIXELS = "too_many_pixels"
    """the header claims more pixels than allowed; nothing was decoded"""
    TOO_COMPLEX = "too_complex"
    """a picture made of far more parts than an honest one: scans, chunks, strips, blocks"""
    OUT_OF_MEMORY = "out_of_memory"
    """decoding the picture asked for more memory than there was"""
    TOO_SMALL = "too_small"
    """a side is shorter than allowed"""
    DUPLICATE_KEY = "duplicate_key"
    """an earlier record has this key"""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one record."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class RejectedRecord:
    """A row of the quarantine."""

    key: str | None
    source: str
    """file, relative to the source"""
    row: int
    """row in that file, from 0"""
    stage: Stage
    reason: Reason
    detail: str


def shorten(value: object, max_characters: int = MAX_DETAIL_CHARACTERS) -> str:
    """A value as one short printable line."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else " " for c in text[: max_characters + 1])
    return text if len(text) <= max_characters else text[: max_characters - 3] + "..."
