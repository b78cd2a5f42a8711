"""The lines of a text file, plain or gzip, however long or damaged."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from mlim_ray.data import storage
from mlim_ray.data.sources.forms import BYTE_ORDER_MARK

MAX_LINE_BYTES = 16 << 20
"""longer lines are not read: a file without line ends must not fill the memory"""
_BUFFER_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


@contextmanager
def open_unzipped(path: str) -> Iterator[tuple[BinaryIO, bool]]:
    """The file at `path`, unzipped if it is gzip, and whether it is.

    Seeking forward in a gzip file unzips what lies between. Raises ValueError that names the file if it is
    damaged.
    """
    try:
        with storage.open_read(path) as opened:
            # Remote files cannot read a line of bounded length themselves.
            file = io.BufferedReader(opened, _BUFFER_BYTES) if storage.is_remote(path) else opened  # type: ignore[type-var]
            is_zipped = file.read(2) == _GZIP
            file.seek(0)
            yield (cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_zipped else file), is_zipped
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: {error}; fetch or write it again") from error


def skip_mark(file: BinaryIO) -> None:
    """Go to the first byte of the text, after a byte order mark if there is one."""
    if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
        file.seek(0)


class Lines:
    """The lines from where a file stands, with their ends; None for one of more than MAX_LINE_BYTES."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.num_bytes = 0
        """read so far"""

    def __iter__(self) -> Iterator[bytes | None]:
        while line := self._file.readline(MAX_LINE_BYTES):
            self.num_bytes += len(line)
            if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
                yield line
                continue
            while rest := self._file.readline(MAX_LINE_BYTES):
                self.num_bytes += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield None


def cut_text(content: bytes) -> bytes:
    """At most MAX_LINE_BYTES of a text; a character that would be cut in two, and make all invalid, goes too."""
    if len(content) <= MAX_LINE_BYTES:
        return content
    content = content[:MAX_LINE_BYTES]
    begins = (place for place in range(1, 5) if content[-place] & 0xC0 != 0x80)
    return content[: -next(begins, 1)]
