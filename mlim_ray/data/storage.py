"""Files on the local disk and in S3 behind one small set of functions.

A path is a plain string: a local path (`data/set`), or `s3://bucket/key`. Credentials, region and endpoint
come from the standard AWS chain (docs/s3.md). Whatever fails is a `StorageError` that names the path; what
fails in S3 and may pass is tried again for 90 s first. All of it may be called from any number of threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from mlim_ray.data.storage_error import MissingPathError as MissingPathError
from mlim_ray.data.storage_error import StorageError as StorageError

LINKED_FOLDER = "link to a folder"
"""stamp of what `walk_files` finds but does not enter"""
_BROKEN_LINK = "broken link"
_CHUNK_BYTES = 1 << 20
# No system takes more than its IOV_MAX, 1,024 on Linux and macOS.
_PARTS_AT_ONCE = 512
_FULL = "make room there, or choose another disk"
_MENDS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another disk",
    errno.EROFS: "choose a place that can be written to",
}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One listed file: the folder that was listed, its path relative to it, its size and a change stamp.

    A listing of a million files holds a million of these, so the whole path is put together when asked for.
    """

    folder: str
    relative: str
    num_bytes: int
    stamp: str
    """modification time in nanoseconds (local) or ETag (S3): another value means another content"""

    @property
    def path(self) -> str:
        """The file's own path."""
        return f"{self.folder}/{self.relative}" if self.folder else self.relative


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
    if is_remote(path):
        from mlim_ray.data.s3.file import open_object

        return cast(BinaryIO, open_object(path))
    with _explained("read", path):
        return open(path, "rb")


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The content of `path`, or its first `max_bytes`."""
    if is_remote(path):
        return _s3().read(path, 0, max_bytes)
    with _explained("read", path), open(path, "rb") as file:
        return file.read(-1 if max_bytes is None else max_bytes)


def read_range(path: str, start: int, length: int) -> bytes:
    """`length` bytes of `path` from byte `start` on; fewer only where the file ends."""
    if is_remote(path):
        return _s3().read(path, start, length)
    with _explained("read", path), open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


def write_bytes_atomically(path: str, data: bytes | memoryview) -> None:
    """Write `path` so that readers see the old content or the new, never a part; makes missing folders."""
    if is_remote(path):
        _s3().write(path, data)
    else:
        _write_local(path, [data], is_synced=True)


def write_unsynced(path: str, parts: Sequence[bytes | memoryview]) -> None:
    """Write `parts`, one after the other, without waiting for the disk.

    To readers, and to whoever goes on after a kill, it is as `write_bytes_atomically`. After a power cut, though, the
    file may be shorter than it was, or hold zeros, unless `sync` has been called.
    """
    if is_remote(path):
        _s3().write(path, parts[0] if len(parts) == 1 else b"".join(parts))
    else:
        _write_local(path, parts, is_synced=False)


def sync(path: str) -> None:
    """Wait until the file `path` and its name are on the disk; what is in S3 is safe already."""
    if not is_remote(path):
        with _explained("write", path):
            _sync(path)
            _sync(os.path.dirname(path) or ".")


def exists(path: str) -> bool:
    """Whether `path` is a file, or a folder (in S3: whether any key lies below it)."""
    if is_remote(path):
        return _s3().stat(path) is not None or _s3().holds_any(path)
    with _explained("read", path):
        return os.path.exists(path)


def file_bytes(path: str) -> int | None:
    """The size of the file `path`; None if there is no such file."""
    if is_remote(path):
        found = _s3().stat(path)
        return None if found is None else int(found.num_bytes)
    with _explained("read", path):
        return os.path.getsize(path) if os.path.isfile(path) else None


def is_folder(path: str) -> bool:
    """Whether `path` is a folder (in S3: whether any key lies below it)."""
    if is_remote(path):
        return _s3().holds_any(path)
    with _explained("read", path):
        return os.path.isdir(path)


def list_files(path: str) -> list[FileInfo]:
    """All files below the folder `path`, or `path` itself if it is a file, sorted by relative path.

    Raises StorageError if there is nothing at `path`.
    """
    return list(iter_files(path))


def iter_files(path: str) -> Iterator[FileInfo]:
    """What `list_files` gives, one at a time: no more than a page of S3, or the folders on the way, is held.

    Raises StorageError if there is nothing at `path`, at the first file.
    """
    if is_remote(path):
        yield from _iter_s3(path.rstrip("/"))
        return
    with _explained("list", path):
        if os.path.isfile(path):
            yield _local_info(os.path.dirname(path), os.path.basename(path))
        elif os.path.isdir(path):
            yield from (file for file in _walk_local(path, "") if file.stamp not in {LINKED_FOLDER, _BROKEN_LINK})
        else:
            raise FileNotFoundError(path)


def walk_files(path: str) -> Iterator[FileInfo]:
    """What `iter_files` gives, and what it leaves out: nothing below `path` is passed over silently.

    Links to folders are given as files with the stamp LINKED_FOLDER, and broken links with no bytes. Raises
    StorageError if there is nothing at `path`, at the first file.
    """
    if is_remote(path) or os.path.isfile(path) or not os.path.exists(path):
        yield from iter_files(path)
        return
    with _explained("list", path):
        yield from _walk_local(path, "")


def list_names(folder: str) -> list[str]:
    """The names directly below `folder`, sorted; none if it does not exist."""
    if is_remote(folder):
        return sorted(_names_s3(folder))
    with _explained("list", folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def remove(path: str) -> None:
    """Remove the file `path`; one that does not exist is no error."""
    if is_remote(path):
        _s3().delete(path)
        return
    with _explained("remove", path):
        if os.path.lexists(path):
            os.remove(path)


def remove_tree(path: str) -> None:
    """Remove the folder `path` and all below it; one that does not exist is no error."""
    if is_remote(path):
        _s3().delete_below(path)
        return
    with _explained("remove", path):
        if os.path.isdir(path):
            shutil.rmtree(path)


def remove_empty_folder(path: str) -> None:
    """Remove the folder `path` if nothing is in it; a link to one, or none, is no error. In S3 there are no folders."""
    if is_remote(path):
        return
    with _explained("remove", path):
        if os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path):
            os.rmdir(path)


def abort_unfinished_uploads(folder: str, older_than_s: float = 0.0) -> int:
    """Drop what writers that were killed left of large objects below `folder`; gives how many there were.

    Such parts are never seen and are paid for. Nothing else may be writing there, unless `older_than_s` says
    from which age on an upload is nobody's. On local disk there are none.
    """
    if not is_remote(folder):
        return 0
    from mlim_ray.data.s3.uploads import abort_unfinished

    return abort_unfinished(folder, older_than_s)


def sha256_of(data: bytes | memoryview) -> str:
    """The sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256(path: str) -> str:
    """The sha256 of the file `path` in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with _explained("read", path), open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _s3() -> Any:
    # botocore is loaded only where S3 is used.
    from mlim_ray.data.s3 import objects

    return objects


def _walk_local(root: str, below: str) -> Iterator[FileInfo]:
    """All of `root/below` in the order of their relative paths, which is not that of the names of folders."""
    with os.scandir(os.path.join(root, below)) as entries:
        # With its slash a folder stands where its files do in the order of whole paths.
        found = sorted((entry.name + "/" * entry.is_dir(), entry) for entry in entries)
    for name, entry in found:
        relative = below + name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_local(root, relative)
        elif entry.is_dir():
            yield FileInfo(root, relative.rstrip("/"), 0, LINKED_FOLDER)
        elif entry.is_file():
            yield _local_info(root, relative)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield FileInfo(root, relative, 0, _BROKEN_LINK)


def _local_info(folder: str, relative: str) -> FileInfo:
    status = os.stat(os.path.join(folder, relative))
    return FileInfo(folder, relative, status.st_size, str(status.st_mtime_ns))


def _iter_s3(path: str) -> Iterator[FileInfo]:
    # S3 gives keys in the order of their UTF-8 bytes, which is that of Python's strings.
    start, found_any = len(_s3().split(path)[1]), False
    start += 1 if start else 0
    for page in _s3().pages(path):
        for found in page["Contents"]:
            if not found["Key"].endswith("/"):
                found_any = True
                yield FileInfo(path, found["Key"][start:], int(found["Size"]), found["ETag"].strip('"'))
    if not found_any:
        file = _s3().stat(path)
        if file is None:
            raise MissingPathError(f"cannot list {path}: it does not exist; check the path")
        yield FileInfo(parent(path), posixpath.basename(path), file.num_bytes, file.etag)


def _names_s3(folder: str) -> set[str]:
    names = set()
    for page in _s3().pages(folder, delimiter="/"):
        names |= {posixpath.basename(found["Key"]) for found in page.get("Contents", ())}
        names |= {posixpath.basename(found["Prefix"].rstrip("/")) for found in page.get("CommonPrefixes", ())}
    # A folder's own mark, which some tools write.
    return names - {""}


def _write_local(path: str, parts: Sequence[bytes | memoryview], *, is_synced: bool) -> None:
    with _explained("write", path):
        folder = os.path.dirname(path) or "."
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{os.path.basename(path)}.{uuid.uuid4().hex}.tmp")
        try:
            # Of thousands of pictures each would be a call of its own: four times the processor's time.
            with open(temporary, "wb", buffering=0) as file:
                for first in range(0, len(parts), _PARTS_AT_ONCE):
                    _write_all(file.fileno(), parts[first : first + _PARTS_AT_ONCE])
                if is_synced:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise
        if is_synced:
            # Without this a renamed file may be gone after a power cut.
            _sync(folder)


def _write_all(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    waiting = [memoryview(part).cast("B") for part in parts]
    while waiting:
        written = os.writev(descriptor, waiting)
        # Less than all of it where there is very much, or a signal came.
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.pop(0))
        if written:
            waiting[0] = waiting[0][written:]


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(action: str, path: str) -> Iterator[None]:
    """Turn what the local file system raises into a StorageError that names `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingPathError(f"cannot {action} {path}: it does not exist; check the path") from error
    except PermissionError as error:
        raise StorageError(f"cannot {action} {path}: access denied; check its permissions") from error
    except OSError as error:
        mend = f"; {_MENDS[error.errno]}" if error.errno in _MENDS else ""
        raise StorageError(f"cannot {action} {path}: {error.strerror or error}{mend}") from error
