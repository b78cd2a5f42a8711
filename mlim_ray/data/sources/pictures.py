"""Pictures that a table names by path, never outside the folder they belong to."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlim_ray.data import storage
from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.rejection import Problem, Reason, shorten

_REMOTE_THREADS = 16
_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo"})

PathValue = bytes | str | None


@dataclass(frozen=True)
class PictureFolder:
    """A folder, local or in S3, that picture paths are relative to."""

    root: str

    def read_all(self, paths: Sequence[PathValue]) -> list[bytes | Problem]:
        """The pictures at `paths`, or why there is none."""
        if not storage.is_remote(self.root):
            return [self.read(path) for path in paths]
        with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
            return list(pool.map(self.read, paths))

    def read(self, path: PathValue) -> bytes | Problem:
        """The bytes at `path`, or why there are none. Raises StorageError if S3 itself fails."""
        if path is None:
            return Problem(Reason.MISSING_PICTURE, "null path")
        try:
            name = path if isinstance(path, str) else path.decode()
        except UnicodeDecodeError:
            return Problem(Reason.INVALID_UTF8, "picture path")
        if not name.strip():
            return Problem(Reason.MISSING_PICTURE, "empty path")
        if "://" in name:
            return Problem(Reason.PATH_OUTSIDE_FOLDER, f"{shorten(name, 100)}: URLs are not downloaded")
        if name.startswith("/") or posixpath.normpath(name).split("/", 1)[0] == "..":
            return Problem(Reason.PATH_OUTSIDE_FOLDER, shorten(name, 100))
        return self._read_remote(name) if storage.is_remote(self.root) else self._read_local(name)

    def identity(self) -> list[tuple[str, int, str]]:
        """Name, size and change stamp of every picture file below the folder."""
        return [
            (f"picture/{file.relative}", file.num_bytes, file.stamp)
            for file in storage.list_files(self.root)
            if posixpath.splitext(file.relative)[1].lower() in _SUFFIXES
        ]

    def _read_local(self, name: str) -> bytes | Problem:
        shown = shorten(name, 100)
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
                return file.read(MAX_ENCODED_BYTES + 1)
        except FileNotFoundError:
            return Problem(Reason.MISSING_PICTURE, f"{shown} does not exist")
        except (OSError, ValueError) as error:
            return Problem(Reason.MISSING_PICTURE, f"{shown}: {shorten(str(error), 100)}")

    def _read_remote(self, name: str) -> bytes | Problem:
        path = storage.join(self.root, posixpath.normpath(name))
        try:
            return storage.read_bytes(path, MAX_ENCODED_BYTES + 1)
        except storage.MissingPathError:
            return Problem(Reason.MISSING_PICTURE, f"{shorten(name, 100)} does not exist")
