"""Which form a file has, told from its first bytes; a suffix decides only where they leave it open."""

from __future__ import annotations

import json
import tarfile
import zlib
from enum import StrEnum

HEAD_BYTES = 8_192
"""what is read of a file to tell its form"""
DELIMITERS = ",\t;|"
PICTURE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo"),
        # Pictures that cannot be decoded here: they are rejected, rather than left out silently.
        *(".heic", ".heif", ".avif", ".svg", ".jp2", ".psd", ".ico", ".ppm", ".tga"),
    ]
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Form(StrEnum):
    """The forms that files of records have, as `--format` names them."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"
    WEBDATASET = "webdataset"
    FOLDER = "folder"

    @property
    def shown(self) -> str:
        """The files of this form, in words."""
        return _SHOWN[self]


_SHOWN = {
    Form.PARQUET: "Parquet",
    Form.CSV: "CSV or TSV",
    Form.JSONL: "JSON Lines",
    Form.WEBDATASET: "tar",
    Form.FOLDER: "picture",
}
_TABLE_SUFFIXES = {
    **dict.fromkeys((".parquet", ".pq"), Form.PARQUET),
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".tsv.gz"), Form.CSV),
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), Form.JSONL),
    **dict.fromkeys((".tar", ".tar.gz", ".tgz"), Form.WEBDATASET),
}
_PICTURE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")


def form_of(suffix: str, head: bytes) -> tuple[Form | None, bool]:
    """The form of a file by its suffix and its first bytes, and whether that is certain.

    Not certain is text of another suffix which happens to look like a table: a caption, a list of files.
    """
    plain = unzipped(head)
    content = _binary_form(plain, is_zipped=plain is not head)
    if content is not None:
        return content, True
    named = _TABLE_SUFFIXES.get(suffix)
    if _begins_with_object(plain):
        return Form.JSONL, named in (Form.CSV, Form.JSONL) or not suffix
    if named is not None:
        return named, True
    if suffix in (".json", ".json.gz"):
        return Form.JSONL, False
    return (Form.CSV, False) if _begins_with_fields(plain) else (None, False)


def unzipped(head: bytes) -> bytes:
    """The beginning of what is inside a gzip file; the same bytes if they are no gzip."""
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        return zlib.decompressobj(31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _binary_form(head: bytes, is_zipped: bool) -> Form | None:
    if head[:4] == b"PAR1" and not is_zipped:
        return Form.PARQUET
    if head.startswith(_PICTURE_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return Form.FOLDER
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        return Form.WEBDATASET
    except tarfile.TarError:
        return None


def _begins_with_object(head: bytes) -> bool:
    line, is_whole = _first_line(head)
    if not line.startswith(b"{"):
        return False
    if not is_whole:
        return line[1:].lstrip()[:1] == b'"'
    try:
        return isinstance(json.loads(line.decode("utf-8", "surrogateescape")), dict)
    except (ValueError, RecursionError):
        return False


def _begins_with_fields(head: bytes) -> bool:
    line, is_whole = _first_line(head)
    if not is_whole or b"\0" in head:
        return False
    return any(len(fields) > 1 and all(field.strip() for field in fields) for fields in _splits(line))


def _splits(line: bytes) -> list[list[bytes]]:
    return [line.split(delimiter.encode()) for delimiter in DELIMITERS]


def _first_line(head: bytes) -> tuple[bytes, bool]:
    lines = head.removeprefix(BYTE_ORDER_MARK).lstrip().split(b"\n", 1)
    return lines[0].strip(), len(lines) > 1 or len(head) < HEAD_BYTES
