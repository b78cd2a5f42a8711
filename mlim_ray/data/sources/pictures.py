"""Pictures that a table names by path, never outside the folder they belong to."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mlim_ray.data import storage
from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.rejection import Problem, Reason, shorten
from mlim_ray.data.sources.forms import PICTURE_SUFFIXES
from mlim_ray.data.sources.listing import Identity, Listing
from mlim_ray.data.text import decode_utf8

_REMOTE_THREADS = 16
_FIRST_READ_BYTES = 4_000_000
# One more than allowed, so that it shows.
_MAX_READ_BYTES = MAX_ENCODED_BYTES + 1
_SHOWN_CHARACTERS = 100
PICTURES_PREFIX = "pictures/"
"""what the names of pictures begin with in the identity of a table"""
_FAILING_DISK = frozenset({errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT})
_URLS = ("http://", "https://")
FETCH = "fetch them with img2dataset (https://github.com/rom1504/img2dataset) and prepare what it writes"
"""how a person gets pictures that are only URLs"""

PathValue = bytes | str | None


@dataclass(frozen=True)
class PictureFolder:
    """A folder, local or in S3, that picture paths are relative to."""

    root: str

    def read_each(self, paths: Iterable[PathValue], max_bytes: int = _MAX_READ_BYTES) -> Iterator[bytes | Problem]:
        """The first bytes at `paths`, one file after the other, or why there are none.

        In S3 a few are fetched ahead, but only the first bytes of large ones, so that hostile sizes do not add up.
        Raises StorageError if S3 itself fails.
        """
        if not storage.is_remote(self.root):
            for path in paths:
                yield self.read(path, max_bytes)
            return
        ahead: deque[tuple[PathValue, Future[bytes | Problem]]] = deque()
        with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
            for path in paths:
                ahead.append((path, pool.submit(self.read, path, min(max_bytes, _FIRST_READ_BYTES))))
                if len(ahead) >= _REMOTE_THREADS:
                    yield self._whole(*ahead.popleft(), max_bytes)
            while ahead:
                yield self._whole(*ahead.popleft(), max_bytes)

    def read(self, path: PathValue, max_bytes: int = _MAX_READ_BYTES) -> bytes | Problem:
        """The first bytes at `path`, or why there are none. Raises StorageError if S3 itself fails."""
        name = self._inside(path)
        if isinstance(name, Problem):
            return name
        return self._read_remote(name, max_bytes) if storage.is_remote(self.root) else self._read_local(name, max_bytes)

    def identity(self) -> Identity:
        """What every picture file below the folder is known by, one entry a folder."""
        return picture_identity(Listing.of(self.root))

    def _whole(self, path: PathValue, begun: Future[bytes | Problem], max_bytes: int) -> bytes | Problem:
        first = begun.result()
        if isinstance(first, Problem) or len(first) < min(max_bytes, _FIRST_READ_BYTES):
            return first
        return self.read(path, max_bytes)

    def _inside(self, path: PathValue) -> str | Problem:
        """The path relative to the root."""
        if path is None:
            return Problem(Reason.MISSING_PICTURE, "null path")
        name = decode_utf8(path)
        if isinstance(name, Problem):
            return Problem(name.reason, f"picture path: {name.detail}")
        if not name.strip():
            return Problem(Reason.MISSING_PICTURE, "empty path")
        shown = shorten(name, _SHOWN_CHARACTERS)
        if is_url(name):
            return Problem(Reason.PATH_OUTSIDE_FOLDER, f"{shown}: URLs are not downloaded; {FETCH}")
        below = name.removeprefix(f"{self.root}/") if storage.is_remote(self.root) else name
        if "://" in below:
            return Problem(Reason.PATH_OUTSIDE_FOLDER, f"{shown} is not below the folder of the pictures")
        # A key of S3 may hold what a path of a file system never does, so others are left as they are.
        if below.startswith("/") or not {".", ".."}.isdisjoint(below.split("/")):
            below = posixpath.normpath(below)
            if below.startswith("/") or below.split("/", 1)[0] == "..":
                return Problem(Reason.PATH_OUTSIDE_FOLDER, shown)
        return below

    def _read_local(self, name: str, max_bytes: int) -> bytes | Problem:
        shown = shorten(name, _SHOWN_CHARACTERS)
        try:
            root = os.path.realpath(self.root)
            real = os.path.realpath(os.path.join(root, name))
            if os.path.commonpath([root, real]) != root:
                return Problem(Reason.PATH_OUTSIDE_FOLDER, f"{shown} is a link out of the folder")
            status = os.stat(real)
            # A pipe or device would block, or never end.
            if not stat.S_ISREG(status.st_mode):
                return Problem(Reason.MISSING_PICTURE, f"{shown} is no file")
            if status.st_size > MAX_ENCODED_BYTES:
                return Problem(Reason.TOO_MANY_BYTES, f"{shown} has {status.st_size} bytes")
            with open(real, "rb") as file:
                return file.read(max_bytes)
        except FileNotFoundError:
            return Problem(Reason.MISSING_PICTURE, f"{shown} does not exist")
        except OSError as error:
            if error.errno in _FAILING_DISK:
                # No fault of the record: the next one would be rejected for it too.
                raise storage.StorageError(f"cannot read {os.path.join(self.root, name)}: {error.strerror}") from error
            # Not the error's own text, which holds the whole path.
            return Problem(Reason.MISSING_PICTURE, f"{shown}: {error.strerror}")
        except ValueError as error:
            return Problem(Reason.MISSING_PICTURE, f"{shown}: {shorten(str(error), _SHOWN_CHARACTERS)}")

    def _read_remote(self, name: str, max_bytes: int) -> bytes | Problem:
        try:
            return storage.read_bytes(storage.join(self.root, name), max_bytes)
        except storage.MissingPathError:
            return Problem(Reason.MISSING_PICTURE, f"{shorten(name, _SHOWN_CHARACTERS)} does not exist")


def is_url(path: PathValue) -> bool:
    """Whether a picture path is a web address."""
    name = path.decode("utf-8", "replace") if isinstance(path, bytes) else path or ""
    return name.lstrip().lower().startswith(_URLS)


def refuse_urls(source: str, column: str, paths: Sequence[PathValue]) -> None:
    """Raise ValueError if every one of some sampled picture paths is a web address."""
    given = [path for path in paths if path]
    if given and all(map(is_url, given)):
        first = given[0] if isinstance(given[0], str) else given[0].decode("utf-8", "replace")
        raise ValueError(
            f"the pictures of {source} are URLs (column {column}: {shorten(first, _SHOWN_CHARACTERS)}), which are not "
            f"downloaded: {FETCH}, or name a column of paths or bytes with --image-column"
        )


def picture_identity(listing: Listing) -> Identity:
    """The identity of the picture files in a listing."""
    return listing.take(listing.of_suffix(PICTURE_SUFFIXES.__contains__)).identity(PICTURES_PREFIX)
