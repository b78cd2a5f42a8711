"""The files of a source, millions of them in little memory."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.data import storage

Identity = list[tuple[str, int, str]]
"""name, size and change stamp of each file, or of each folder of files"""

FILES_SCHEMA = pa.schema([("file", pa.large_binary()), ("num_bytes", pa.int64()), ("stamp", pa.large_binary())])
"""Files as a table; names are bytes because a file system may hold any."""

_CHUNK_FILES = 8_192
# Of a folder; that of a file is an ETag or a number.
_FOLDER_STAMP = re.compile(r"(\d+) files [0-9a-f]{64}$")
_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,9}(?:\.gz)?$")
# A name such as `shoe.red` ends in a suffix too; beyond so many different ones none of them means anything.
_MOST_SUFFIXES = 256


@dataclass(frozen=True)
class Listing:
    """F files below a folder, in the order of their paths.

    Kept as arrays: about 60 bytes a file (a local change stamp has 19, an ETag 32) and its relative path.
    """

    root: str
    names_F: pa.LargeBinaryArray
    """paths relative to the root, as bytes because a file system may hold any"""
    num_bytes_F: NDArray[np.int64]
    stamps_F: pa.LargeBinaryArray
    suffix_F: NDArray[np.int16]
    """number of each file's suffix in `suffixes`"""
    suffixes: tuple[str, ...]
    """in lower case, `.csv.gz` as one; the first is empty and stands for none"""
    is_file: bool = False
    """whether it was made of one file that was named itself"""

    @classmethod
    def of(cls, path: str) -> Listing:
        """The files below the folder `path`, or the file `path` alone, below its own folder.

        Raises StorageError if there is nothing.
        """
        found = storage.walk_files(path)
        numbers = {"": 0}
        names: list[pa.Array] = []
        stamps: list[pa.Array] = []
        sizes: list[NDArray[np.int64]] = []
        suffixes: list[NDArray[np.int16]] = []
        root, is_file = path, False
        while chunk := list(islice(found, _CHUNK_FILES)):
            if chunk[0].path == path:
                root, is_file = storage.parent(path), True
            names.append(pa.array([_to_bytes(file.relative) for file in chunk], pa.large_binary()))
            stamps.append(pa.array([file.stamp.encode() for file in chunk], pa.large_binary()))
            sizes.append(np.array([file.num_bytes for file in chunk], np.int64))
            suffixes.append(np.array([_number(file.relative, numbers) for file in chunk], np.int16))
        return cls(
            root,
            _joined(names),
            np.concatenate([np.empty(0, np.int64), *sizes]),
            _joined(stamps),
            np.concatenate([np.empty(0, np.int16), *suffixes]),
            tuple(numbers),
            is_file,
        )

    def __len__(self) -> int:
        return len(self.num_bytes_F)

    def relative(self, number: int) -> str:
        """The path of a file relative to the root."""
        return to_text(self.names_F[number].as_py())

    def file(self, number: int) -> storage.FileInfo:
        """One file."""
        relative = self.relative(number)
        stamp = self.stamps_F[number].as_py().decode()
        return storage.FileInfo(self.root, relative, int(self.num_bytes_F[number]), stamp)

    def files(self, numbers: Iterable[int]) -> list[storage.FileInfo]:
        """Some files, for which there have to be few."""
        return [self.file(int(number)) for number in numbers]

    def table(self) -> pa.Table:
        """The files as a table of FILES_SCHEMA."""
        return pa.table([self.names_F, self.num_bytes_F, self.stamps_F], schema=FILES_SCHEMA)

    def take(self, chosen_F: NDArray[np.bool_]) -> Listing:
        """The chosen files."""
        mask = pa.array(chosen_F)
        return Listing(
            self.root,
            self.names_F.filter(mask),
            self.num_bytes_F[chosen_F],
            self.stamps_F.filter(mask),
            self.suffix_F[chosen_F],
            self.suffixes,
            self.is_file,
        )

    def of_suffix(self, fits: Callable[[str], bool]) -> NDArray[np.bool_]:
        """For each file whether its suffix fits."""
        fitting = [number for number, suffix in enumerate(self.suffixes) if fits(suffix)]
        return np.isin(self.suffix_F, fitting)

    def hidden(self) -> NDArray[np.bool_]:
        """For each file whether it or a folder on its way begins with a point or an underscore.

        One that was named itself never is.
        """
        if self.is_file:
            return np.zeros(len(self), np.bool_)
        parts = (bytes(name.as_buffer()).split(b"/") for name in self.names_F)
        return np.fromiter((any(part[:1] in (b".", b"_") for part in path) for path in parts), np.bool_, len(self))

    def identity(self, prefix: str = "") -> Identity:
        """One entry for each folder: its bytes, and a hash over name, size and stamp of its files.

        So that the identity of millions of pictures stays small; any change of one file changes its folder's.
        """
        found: Identity = []
        folder, total, num_files, digest = "", 0, 0, hashlib.sha256()
        rows = zip(self.names_F, self.num_bytes_F.tolist(), self.stamps_F, strict=True)
        for name, size, stamp in rows:
            here = posixpath.dirname(to_text(name.as_py()))
            if here != folder and num_files:
                found.append((f"{prefix}{folder}/", total, f"{num_files} files {digest.hexdigest()}"))
                total, num_files, digest = 0, 0, hashlib.sha256()
            folder = here
            total, num_files = total + size, num_files + 1
            digest.update(b"%b\0%d\0%b\n" % (name.as_py(), size, stamp.as_py()))
        if num_files:
            found.append((f"{prefix}{folder}/", total, f"{num_files} files {digest.hexdigest()}"))
        return found


def num_files(identity: Identity) -> int:
    """The number of files that an identity stands for."""
    counts = [_FOLDER_STAMP.match(stamp) for _, _, stamp in identity]
    return sum(1 if count is None else int(count[1]) for count in counts)


def to_text(name: bytes) -> str:
    """A path as Python knows it, with surrogates for bytes that are no UTF-8."""
    return name.decode("utf-8", "surrogateescape")


def suffix_of(name: str) -> str:
    """The suffix of a file in lower case; empty for none and for what cannot be one, such as `.0001`."""
    found = _SUFFIX.search(posixpath.basename(name).lower())
    return found.group() if found is not None and found.start() > 0 else ""


def _to_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _number(name: str, numbers: dict[str, int]) -> int:
    suffix = suffix_of(name)
    if suffix not in numbers and len(numbers) >= _MOST_SUFFIXES:
        return 0
    return numbers.setdefault(suffix, len(numbers))


def _joined(parts: list[pa.Array]) -> pa.LargeBinaryArray:
    return pa.concat_arrays(parts) if parts else pa.array([], pa.large_binary())
