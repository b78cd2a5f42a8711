"""Files on the local disk and in S3 behind one small set of functions.

A path is a plain string: a local path (`data/set`), or `s3://bucket/key`. Credentials, region and endpoint
come from the standard AWS chain. Whatever fails is a `StorageError` that names the path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
MAX_S3_ATTEMPTS = 5
LINKED_FOLDER = "link to a folder"
"""stamp of what `walk_files` finds but does not enter"""
_CHUNK_BYTES = 1 << 20


class StorageError(ValueError):
    """A path that cannot be read or written; the message names the path and the mend."""


class MissingPathError(StorageError):
    """A path where there is nothing."""


@dataclass(frozen=True)
class FileInfo:
    """One listed file: its path, its path relative to the listed folder, its size and a change stamp."""

    path: str
    relative: str
    num_bytes: int
    stamp: str
    """modification time in nanoseconds (local) or ETag (S3): another value means another content"""


def is_remote(path: str) -> bool:
    """Whether `path` lies in S3. Raises ValueError for another scheme and for credentials in the path."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return False
    if scheme != "s3":
        raise ValueError(f"{scheme}:// paths are not supported; expected a local path or s3://bucket/key")
    if "@" in rest.split("/", 1)[0]:
        raise ValueError("credentials inside an s3:// path; expected them in the AWS environment or profile")
    if not urlsplit(path).netloc:
        raise ValueError(f"{path} names no bucket; expected s3://bucket/key")
    return True


def absolute(path: str) -> str:
    """A path that means the same in a process with another working folder."""
    return path.rstrip("/") if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def join(base: str, *parts: str) -> str:
    """`base` with `parts` appended."""
    return posixpath.join(base, *parts) if is_remote(base) else os.path.join(base, *parts)


def parent(path: str) -> str:
    """The folder that `path` lies in."""
    return posixpath.dirname(path) if is_remote(path) else os.path.dirname(path)


def open_read(path: str) -> BinaryIO:
    """A seekable binary file of `path`. Raises StorageError where it cannot be opened."""
    with _explained("read", path):
        if is_remote(path):
            return cast(BinaryIO, _s3().open(path, "rb", cache_type="readahead"))
        return open(path, "rb")


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The content of `path`, or its first `max_bytes`."""
    with _explained("read", path):
        if is_remote(path):
            return _read_s3(path, max_bytes)
        with open(path, "rb") as file:
            return file.read(-1 if max_bytes is None else max_bytes)


def read_range(path: str, start: int, length: int) -> bytes:
    """`length` bytes of `path` from byte `start` on. Raises StorageError if it has fewer."""
    with _explained("read", path):
        if is_remote(path):
            content = cast(bytes, _s3().cat_file(path, start=start, end=start + length))
        else:
            with open(path, "rb", buffering=0) as file:
                content = os.pread(file.fileno(), length, start)
    if len(content) != length:
        raise StorageError(f"{path} ends at byte {start + len(content)}, expected {start + length}; it was cut short")
    return content


def write_bytes_atomically(path: str, data: bytes | memoryview) -> None:
    """Write `path` so that readers see the old content or the new, never a part; makes missing folders."""
    with _explained("write", path):
        if is_remote(path):
            _s3().pipe_file(path, bytes(data))
            return
        folder = os.path.dirname(path) or "."
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{os.path.basename(path)}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise
        _sync_folder(folder)


def exists(path: str) -> bool:
    """Whether `path` is a file, or a folder (in S3: whether any key lies below it)."""
    with _explained("read", path):
        return bool(_s3().exists(path)) if is_remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether `path` is a folder (in S3: whether any key lies below it)."""
    with _explained("read", path):
        return bool(_s3().isdir(path)) if is_remote(path) else os.path.isdir(path)


def list_files(path: str) -> list[FileInfo]:
    """All files below the folder `path`, or `path` itself if it is a file, sorted by relative path.

    Raises StorageError if there is nothing at `path`.
    """
    with _explained("list", path):
        found = _list_s3(path) if is_remote(path) else _list_local(path)
    return sorted(found, key=lambda file: file.relative)


def walk_files(path: str) -> Iterator[FileInfo]:
    """What `list_files` lists, in the same order, one at a time: millions of files need no memory of their own.

    Links to folders are given as files with the stamp LINKED_FOLDER, and broken links with no bytes, so that
    neither is left out silently. Raises StorageError if there is nothing at `path`.
    """
    with _explained("list", path):
        yield from _walk_s3(path) if is_remote(path) else _walk_local(path, "")


def list_names(folder: str) -> list[str]:
    """The names directly below `folder`, sorted; none if it does not exist."""
    with _explained("list", folder):
        if is_remote(folder):
            filesystem = _s3()
            if not filesystem.exists(folder):
                return []
            return sorted({posixpath.basename(name.rstrip("/")) for name in filesystem.ls(folder, detail=False)})
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def remove(path: str) -> None:
    """Remove the file `path`; one that does not exist is no error."""
    with _explained("remove", path):
        if is_remote(path):
            filesystem = _s3()
            if filesystem.exists(path):
                filesystem.rm_file(path)
        elif os.path.lexists(path):
            os.remove(path)


def remove_tree(path: str) -> None:
    """Remove the folder `path` and all below it; one that does not exist is no error."""
    with _explained("remove", path):
        if is_remote(path):
            filesystem = _s3()
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)
        elif os.path.isdir(path):
            shutil.rmtree(path)


def sha256_of(data: bytes | memoryview) -> str:
    """The sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256(path: str) -> str:
    """The sha256 of the file `path` in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open_read(path) as file, _explained("read", path):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@cache
def _s3() -> AbstractFileSystem:
    import s3fs

    # A listing cache would hide files that other processes write.
    return s3fs.S3FileSystem(
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"max_attempts": MAX_S3_ATTEMPTS, "mode": "standard"},
        },
    )


def _read_s3(path: str, max_bytes: int | None) -> bytes:
    filesystem = _s3()
    try:
        return cast(bytes, filesystem.cat_file(path, start=None if max_bytes is None else 0, end=max_bytes))
    except OSError as error:
        # S3 has no range of an empty object, not even from its beginning.
        if error.errno != errno.EINVAL or max_bytes is None or filesystem.size(path):
            raise
        return b""


def _list_local(path: str) -> list[FileInfo]:
    if os.path.isfile(path):
        return [_local_info(path, os.path.basename(path))]
    if not os.path.isdir(path):
        raise FileNotFoundError(path)
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            if os.path.isfile(full):
                found.append(_local_info(full, os.path.relpath(full, path).replace(os.sep, "/")))
    return found


def _walk_local(root: str, below: str) -> Iterator[FileInfo]:
    if not below and os.path.isfile(root):
        yield _local_info(root, os.path.basename(root))
        return
    with os.scandir(os.path.join(root, below)) as entries:
        # With its slash a folder stands where its files do in the order of whole paths.
        found = sorted((entry.name + "/" * entry.is_dir(), entry) for entry in entries)
    for name, entry in found:
        relative = below + name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_local(root, relative)
        elif entry.is_dir():
            yield FileInfo(entry.path, relative.rstrip("/"), 0, LINKED_FOLDER)
        elif entry.is_file():
            yield _local_info(entry.path, relative)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield FileInfo(entry.path, relative, 0, "broken link")


def _walk_s3(path: str) -> Iterator[FileInfo]:
    filesystem = _s3()
    bucket, _, key = cast(str, filesystem._strip_protocol(path)).partition("/")
    prefix = f"{key.rstrip('/')}/" if key else ""
    page: dict[str, Any] = {"IsTruncated": True}
    num_found = 0
    while page["IsTruncated"]:
        token = {"ContinuationToken": page["NextContinuationToken"]} if "NextContinuationToken" in page else {}
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                num_found += 1
                stamp = str(item.get("ETag", "")).strip('"')
                yield FileInfo(f"s3://{bucket}/{item['Key']}", item["Key"][len(prefix) :], int(item["Size"]), stamp)
    if not num_found:
        yield from _list_s3(path)


def _local_info(path: str, relative: str) -> FileInfo:
    status = os.stat(path)
    return FileInfo(path, relative, status.st_size, str(status.st_mtime_ns))


def _list_s3(path: str) -> list[FileInfo]:
    filesystem = _s3()
    prefix = cast(str, filesystem._strip_protocol(path)).rstrip("/")
    found = filesystem.find(path, detail=True)
    if not found:
        raise FileNotFoundError(path)
    return [
        FileInfo(
            f"s3://{name}",
            name[len(prefix) :].lstrip("/") or posixpath.basename(name),
            int(info["size"]),
            str(info.get("ETag", "")).strip('"'),
        )
        for name, info in found.items()
        if info["type"] == "file" and not name.endswith("/")
    ]


def _sync_folder(folder: str) -> None:
    # Without this a renamed file may be gone after a power cut.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(action: str, path: str) -> Iterator[None]:
    """Turn what local and S3 file systems raise into a StorageError that names `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingPathError(f"cannot {action} {path}: it does not exist; check the path") from error
    except PermissionError as error:
        mend = "check the credentials and the bucket's policy" if "://" in path else "check its permissions"
        raise StorageError(f"cannot {action} {path}: access denied; {mend}") from error
    except OSError as error:
        raise StorageError(f"cannot {action} {path}: {error.strerror or error}") from error
    except ValueError:
        raise
    except Exception as error:
        # botocore's errors share no base with OSError, and botocore is loaded only where S3 is used.
        if type(error).__module__.partition(".")[0] not in {"botocore", "aiobotocore"}:
            raise
        raise StorageError(
            f"cannot {action} {path}: {error}; check the endpoint, the region and the credentials"
        ) from error
