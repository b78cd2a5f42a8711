"""An object as a file: every read gives the object's bytes, and a large one is asked for at once."""

from __future__ import annotations

import io
import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.s3.file import _BUFFER_BYTES, _ObjectFile

CONTENT = np.random.default_rng(0).bytes(400_000)


class Raw(io.RawIOBase):
    """Content that counts how often it is asked for."""

    def __init__(self) -> None:
        self.place = self.num_asked = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: len(CONTENT)}[whence] + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        self.num_asked += 1
        part = CONTENT[self.place : self.place + len(buffer)]
        buffer[: len(part)] = part
        self.place += len(part)
        return len(part)


SIZES = st.sampled_from([0, 1, 100, _BUFFER_BYTES, _BUFFER_BYTES + 1, 150_000, 500_000, -1])


@given(st.lists(st.tuples(st.none() | st.integers(0, len(CONTENT)), SIZES), max_size=12))
def test_any_seeks_and_reads_give_the_content(steps: list[tuple[int | None, int]]) -> None:
    file, place = _ObjectFile(Raw(), _BUFFER_BYTES), 0
    for target, size in steps:
        if target is not None:
            file.seek(target)
            place = target
        expected = CONTENT[place:] if size < 0 else CONTENT[place : place + size]
        assert file.read(size) == expected
        place += len(expected)
        assert file.tell() == place


@given(st.integers(_BUFFER_BYTES + 1, 300_000), st.integers(0, 50_000))
def test_a_large_read_asks_once(size: int, place: int) -> None:
    raw = Raw()
    file = _ObjectFile(raw, _BUFFER_BYTES)
    file.seek(place)
    assert file.read(size) == CONTENT[place : place + size] and raw.num_asked == 1
