"""Objects in S3: look, read, list, write, delete; each call with the retry budget and errors that name the path.

Paths are `s3://bucket/key`; a folder is a prefix that ends in `/`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlim_ray.data.s3.client import client, encryption
from mlim_ray.data.s3.errors import explained
from mlim_ray.data.s3.failures import code_of, is_missing, status_of
from mlim_ray.data.s3.retries import Patience, retried

LARGE_BYTES = 32 << 20
"""from this size on an object is written in parts"""
_PIECE_BYTES = 8 << 20
_DELETED_AT_ONCE = 1000
_REPLACED = "PreconditionFailed"


@dataclass(frozen=True, slots=True)
class Stat:
    """An object's size, and its ETag: another value means another content."""

    num_bytes: int
    etag: str


def split(path: str) -> tuple[str, str]:
    """Bucket and key of an address."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def stat(path: str) -> Stat | None:
    """What is known of the object `path`; None if there is none."""
    bucket, key = split(path)
    if not key or key.endswith("/"):
        return None
    with explained("read", path):
        try:
            found = retried(path, lambda: client().head_object(Bucket=bucket, Key=key))
        except Exception as error:
            if not is_missing(error):
                raise
            return None
    return Stat(int(found["ContentLength"]), str(found["ETag"]).strip('"'))


def holds_any(folder: str) -> bool:
    """Whether any key lies below `folder`. Raises StorageError if there is no such bucket."""
    return any(True for _ in pages(folder, most=1))


def pages(folder: str, *, delimiter: str = "", most: int = 1000) -> Iterator[dict[str, Any]]:
    """S3's own pages of the keys below `folder` in the order of their UTF-8 bytes, one request each; none if empty."""
    bucket, key = split(folder.rstrip("/"))
    options: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "MaxKeys": most}
    if delimiter:
        options["Delimiter"] = delimiter
    while True:
        with explained("list", folder):
            page = retried(folder, partial(client().list_objects_v2, **options))
        if page.get("Contents") or page.get("CommonPrefixes"):
            yield page
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def read(path: str, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
    """Bytes of an object from `start` on; fewer than `length` only at its end.

    What breaks off in the middle goes on where it stopped, if the object is still the same.

    Raises:
        MissingPathError: there is no such object.
        StorageError: it cannot be read, or `etag` is given and it has another one.
    """
    if length == 0:
        return b""
    with explained("read", path):
        return _read(path, start, length, etag)


def write(path: str, data: bytes | memoryview) -> None:
    """Write an object, whole or not at all; S3 checks its MD5."""
    from mlim_ray.data.s3.uploads import write_in_parts

    with explained("write", path):
        if len(data) >= LARGE_BYTES:
            write_in_parts(path, memoryview(data))
            return
        bucket, key = split(path)
        body = bytes(data)
        options = {"Bucket": bucket, "Key": key, "Body": body, "ContentMD5": md5(body), **encryption()}
        retried(path, lambda: client().put_object(**options))


def delete(path: str) -> None:
    """Delete an object; one that does not exist is no error."""
    bucket, key = split(path)
    with explained("remove", path):
        retried(path, lambda: client().delete_object(Bucket=bucket, Key=key))


def delete_below(folder: str) -> None:
    """Delete every object below `folder`."""
    bucket, _ = split(folder)
    for page in pages(folder, most=_DELETED_AT_ONCE):
        keys = [{"Key": found["Key"]} for found in page["Contents"]]
        with explained("remove", folder):
            retried(folder, partial(_delete_keys, bucket, keys))


def md5(data: bytes) -> str:
    """The digest that S3 checks what arrives by, as its header wants it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _read(path: str, start: int, length: int | None, etag: str | None) -> bytes:
    bucket, key = split(path)
    patience = Patience(path)
    pieces: list[bytes] = []
    num_read = 0
    expected = etag
    while True:
        options = {"Bucket": bucket, "Key": key}
        if expected is not None:
            options["IfMatch"] = f'"{expected}"'
        if start + num_read > 0 or length is not None:
            last = "" if length is None else start + length - 1
            options["Range"] = f"bytes={start + num_read}-{last}"
        try:
            answer = client().get_object(**options)
            expected = str(answer["ETag"]).strip('"')
            # As a context the body would hand out its raw stream, which takes a cut answer for a whole one.
            with closing(answer["Body"]) as body:
                while piece := body.read(_PIECE_BYTES):
                    pieces.append(piece)
                    num_read += len(piece)
                    patience.succeeded()
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except Exception as error:
            if status_of(error) == 416:
                # Nothing is left from here on.
                return b"".join(pieces)
            if code_of(error) == _REPLACED and etag is None:
                # It was replaced between two pieces: the new content is as good, from its beginning.
                pieces, num_read, expected = [], 0, None
                continue
            patience.failed(error)


def _delete_keys(bucket: str, keys: list[dict[str, str]]) -> None:
    from botocore.exceptions import ClientError

    answer = client().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    for failed in answer.get("Errors", []):
        if failed.get("Code") != "NoSuchKey":
            raise ClientError({"Error": failed}, "DeleteObjects")
