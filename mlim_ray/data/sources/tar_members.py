"""The members of a tar archive, found by their headers alone: nothing is ever unpacked.

Python's own reader takes a damaged header in the middle of an archive for its end; here it is an error.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_ZEROS = bytes(_BLOCK)
_MAX_NAME_BYTES = 1 << 20
"""what a long name or an extended header may have"""
_WITHOUT_DATA = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_VOLUME_LABEL = b"V"


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive, or a link or device that stands for one."""

    name: str
    start: int
    """byte at which its headers begin"""
    data: int
    """byte at which its content begins"""
    num_bytes: int
    problem: str | None
    """why it must not be read: what it is, or where its name leads"""


def read_members(file: BinaryIO, path: str, num_bytes: int | None, start: int = 0) -> Iterator[Member]:
    """The members of the open archive `path` from byte `start` on, folders left out.

    `num_bytes` is the size of the archive, None where it is zipped. The file may be read between two members.
    Archives that were written one behind the other are read as one. Raises ValueError that names `path` for
    an archive that is damaged or ends early.
    """
    name: str | None = None
    size: int | None = None
    place = first = start
    has_end = False
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        if not block and has_end:
            return
        if len(block) < _BLOCK:
            raise ValueError(f"{path} is truncated at byte {place}: a tar archive ends with blocks of zeros; {_MEND}")
        if block == _ZEROS:
            has_end, place = True, place + _BLOCK
            first = place
            continue
        has_end = False
        header = _header(block, path, place)
        data = place + _BLOCK
        length = header.size if size is None or header.type in _EXTENDING else size
        place = data + (0 if header.type in _WITHOUT_DATA else -(-length // _BLOCK) * _BLOCK)
        if num_bytes is not None and place > num_bytes:
            raise ValueError(f"{path} is truncated: {num_bytes} bytes, and {header.name!r} ends at {place}; {_MEND}")
        if header.type in _EXTENDING:
            if length > _MAX_NAME_BYTES:
                raise ValueError(f"{path} is damaged at byte {data}: a name of {length} bytes; {_MEND}")
            extension = file.read(length)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = extension.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                values = _extended(extension, path, data)
                name = values.get("path", name)
                size = int(values["size"]) if values.get("size", "").isdecimal() else size
            continue
        found = name if name is not None else header.name
        if header.type not in (tarfile.DIRTYPE, _VOLUME_LABEL):
            problem = _WITHOUT_DATA.get(header.type) or _leading_out(found)
            yield Member(found.removeprefix("./"), first, data, length, problem)
        name, size, first = None, None, place


_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MEND = "fetch or write it again"


def _header(block: bytes, path: str, place: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(f"{path} is damaged at byte {place} or no tar archive: {error}; {_MEND}") from error
    if header.size < 0:
        raise ValueError(f"{path} is damaged at byte {place}: a member of {header.size} bytes; {_MEND}")
    if header.type == tarfile.GNUTYPE_SPARSE:
        raise ValueError(f"{path} holds {header.name!r} as a sparse file; write it without tar's --sparse")
    return header


def _extended(content: bytes, path: str, place: int) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of an extended header."""
    values: dict[str, str] = {}
    content = content.rstrip(b"\0")
    start = 0
    while start < len(content):
        # Seven digits are more than an extended header may have.
        digits = content[start : start + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not len(digits) + 1 < length <= len(content) - start:
            raise ValueError(f"{path} is damaged at byte {place}: a broken extended header; {_MEND}")
        key, _, value = content[start + len(digits) + 1 : start + length - 1].partition(b"=")
        values[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        start += length
    return values


def _leading_out(name: str) -> str | None:
    if name.startswith("/"):
        return "an absolute path"
    return "a path out of the archive" if ".." in name.split("/") else None
