"""A fingerprint of raw records that depends on the records alone: not on where they lie, nor on who reads what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.rejection import Problem

_MODULUS = 1 << 256


def digest_records(records: Iterable[RawRecord]) -> int:
    """The sum of the records' sha256, modulo 2^256: parts of a source may be summed in any order."""
    return sum(_digest(record) for record in records) % _MODULUS


def add_digests(digests: Iterable[int]) -> int:
    """The digest of several parts together."""
    return sum(digests) % _MODULUS


def digest_text(digest: int) -> str:
    """A digest as 64 hexadecimal digits."""
    return f"{digest:064x}"


def _digest(record: RawRecord) -> int:
    digest = hashlib.sha256()
    for value in (
        *(record.source, record.row, record.key, record.image, record.text),
        *(record.label, record.group, record.split, record.problem),
        *record.attributes.values(),
    ):
        kind, content = _bytes_of(value)
        digest.update(b"%c%d:" % (kind, len(content)))
        digest.update(content)
    return int.from_bytes(digest.digest(), "big")


def _bytes_of(value: object) -> tuple[bytes, bytes | memoryview]:
    """A letter for the type, so that no two values look alike, and the content."""
    if value is None:
        return b"n", b""
    if isinstance(value, bytes):
        return b"b", value
    if isinstance(value, str):
        return b"s", value.encode("utf-8", "surrogatepass")
    if isinstance(value, np.ndarray):
        return b"a", repr(value.shape).encode() + value.tobytes()
    if isinstance(value, Problem):
        # The words of a problem may come from the operating system.
        return b"p", value.reason.value.encode()
    return b"o", repr(value).encode("utf-8", "surrogatepass")
