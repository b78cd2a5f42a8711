"""An object in S3 as a file that can be read anywhere."""

from __future__ import annotations

import io
import os

from mlim_ray.data.s3 import objects
from mlim_ray.data.storage_error import MissingPathError, StorageError

LEAST_AHEAD_BYTES = 256 << 10
"""that a small read asks for"""
_MOST_AHEAD_BYTES = 8 << 20
_BUFFER_BYTES = 64 << 10


def open_object(path: str) -> io.BufferedReader:
    """The object `path` as a seekable file. Raises MissingPathError if there is none."""
    found = objects.stat(path)
    if found is None:
        # Where there is no such bucket, this says so.
        objects.holds_any(path)
        raise MissingPathError(f"cannot read {path}: it does not exist; check the path")
    return _ObjectFile(_RangedReader(path, found), _BUFFER_BYTES)


class _ObjectFile(io.BufferedReader):
    """Asks for a large read at once: the library's own asks for whole buffers first, and again for the rest."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size <= _BUFFER_BYTES:
            return super().read(size)
        place, behind = self.tell(), self.raw.tell()
        self.raw.seek(place, os.SEEK_SET)
        content = self.raw.read(size) or b""
        # The buffer still holds what lies before this place.
        self.raw.seek(behind, os.SEEK_SET)
        self.seek(place + len(content))
        return content


class _RangedReader(io.RawIOBase):
    """Asks for ranges of one version of an object; reads ahead, further each time a read follows the one before."""

    def __init__(self, path: str, found: objects.Stat) -> None:
        self._path = path
        self._found = found
        self._place = 0
        self._ahead = memoryview(b"")
        self._ahead_start = 0
        self._ahead_bytes = LEAST_AHEAD_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._found.num_bytes}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), max(0, self._found.num_bytes - self._place))
        done = self._copy(target[:wanted])
        if done < wanted:
            missing = wanted - done
            if missing >= self._ahead_bytes:
                target[done:wanted] = self._fetch(missing)
            else:
                self._look_ahead()
                self._copy(target[done:wanted])
        return wanted

    def _copy(self, target: memoryview) -> int:
        """Fill `target` from what was read ahead, as far as it goes."""
        start = self._place - self._ahead_start
        part = self._ahead[start : start + len(target)] if 0 <= start < len(self._ahead) else self._ahead[:0]
        target[: len(part)] = part
        self._place += len(part)
        return len(part)

    def _look_ahead(self) -> None:
        follows = self._place == self._ahead_start + len(self._ahead)
        self._ahead_bytes = min(2 * self._ahead_bytes, _MOST_AHEAD_BYTES) if follows else LEAST_AHEAD_BYTES
        start = self._place
        self._ahead = memoryview(self._fetch(min(self._ahead_bytes, self._found.num_bytes - start)))
        self._ahead_start = self._place = start

    def _fetch(self, num_bytes: int) -> bytes:
        data = objects.read(self._path, self._place, num_bytes, self._found.etag)
        if len(data) != num_bytes:
            raise StorageError(f"{self._path} ended after {self._place + len(data)} of {self._found.num_bytes} bytes")
        self._place += num_bytes
        return data
