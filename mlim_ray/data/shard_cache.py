"""Shards of sets in S3, kept on a node's own disk for all processes there (our choice throughout).

Whole shards, for the manifest has the sha256 of a whole shard: it is the copy's name, and proves what came. A shard is
asked for once, by one request, though its row groups are read all through an epoch and by many tasks.

Readers hold a file open, so that one may be removed under their hands. Writers lay a copy down under another name and
rename it. What ends in the middle leaves a file that nobody holds locked, and the next writer removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from mlim_ray.config.train import FeedConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import StoredFile

IN_USE_S = 3600.0
"""A copy that was read within this time is not removed for another.

Where a set does not fit, what came first stays, and the rest is read in S3 row group by row group: each byte once an
epoch. To displace the least recently used at once would fetch a whole shard for each row group of the rest. So at most
the cache's size is fetched in vain an hour, whatever is read in whatever order.
"""
KEPT_FREE_RATIO = 0.1
"""of the disk: Ray, which writes below the same folder, stops at 5 %"""
_SUFFIX, _PARTIAL = ".parquet", ".partial"
_LOOK_AGAIN_S = 30.0
_CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)

# Of this process: copies that it has hashed, as (sha256, device, inode); shards that are damaged in S3; folders whose
# disk failed; folders that were full, and when to look again.
_hashed: set[tuple[str, int, int]] = set()
_damaged_there: set[str] = set()
_failed: set[str] = set()
_full_until: dict[str, float] = {}


@dataclass(frozen=True)
class ShardCache:
    """The cache of a node, for any number of processes, runs and sets; small enough to travel with a task."""

    place: str | None
    """folder that the cache lies in; None: the system's for temporary files, which each node knows by itself"""
    max_bytes: int

    @classmethod
    def of(cls, feed: FeedConfig) -> ShardCache | None:
        """The cache that a run asks for; None if it wants none."""
        return cls(feed.cache_folder, int(feed.cache_gib * 2**30)) if feed.cache_gib > 0 else None

    @property
    def folder(self) -> str:
        """The cache's own folder on this node, which nobody else may look into."""
        place = tempfile.gettempdir() if self.place is None else os.path.abspath(os.path.expanduser(self.place))
        return os.path.join(place, f"mlim-ray-shards-{os.getuid()}")

    def open(self, source: str, shard: StoredFile) -> BinaryIO | None:
        """This node's copy of the shard at `source`, fetched if it is not there; None: read `source` itself.

        None where there is no room, where the disk fails, which is said once, and where the shard at `source` is not
        what the manifest says: its reader finds out which row group it is. A copy is hashed when a process first
        opens it, and fetched again if it is not what it should be.

        Raises StorageError where `source` cannot be read.
        """
        try:
            self._prepare_folder()
            return self._open_copy(shard) or self._fetch(source, shard)
        except OSError as error:
            if self.folder not in _failed:
                logger.warning("%s: %s; shards are read in S3 without a cache", self.folder, error.strerror or error)
            _failed.add(self.folder)
            return None

    def used(self, copy: BinaryIO) -> None:
        """Note that a copy was read just now."""
        with suppress(OSError):
            os.utime(copy.fileno())

    def discard(self, shard: StoredFile) -> None:
        """Remove a copy that is damaged; the next to open it fetches it again."""
        with suppress(OSError):
            os.unlink(self._path(shard))

    def _path(self, shard: StoredFile) -> str:
        return os.path.join(self.folder, shard.sha256 + _SUFFIX)

    def _prepare_folder(self) -> None:
        folder = self.folder
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
        # Below a folder that all may write to, somebody else may have made it.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(0, "it is no folder of this user alone (mode 0700)")

    def _open_copy(self, shard: StoredFile) -> BinaryIO | None:
        """The copy, if it is there and whole."""
        try:
            copy = open(self._path(shard), "rb")  # noqa: SIM115
        except FileNotFoundError:
            return None
        if _is_whole(copy, shard):
            self.used(copy)
            return copy
        copy.close()
        logger.warning("%s is damaged on this disk; it is fetched again", copy.name)
        return None

    def _fetch(self, source: str, shard: StoredFile) -> BinaryIO | None:
        # One lock for some 1/256 of all shards: two of them seldom wait for each other, and few files lie about.
        with self._locked(shard.sha256[:2]):
            copy = self._open_copy(shard)
            if copy is not None or shard.sha256 in _damaged_there or not self._may_take():
                return copy
            # What lies there is damaged, and would count.
            self.discard(shard)
            with self._reserved(shard.num_bytes) as partial:
                content = None if partial is None else _read_checked(source, shard)
                if partial is None or content is None:
                    return None
                partial.write(content)
                partial.flush()
                with self._locked("room"):
                    os.replace(partial.name, self._path(shard))
            copy = open(self._path(shard), "rb")  # noqa: SIM115
            _hashed.add(_identity(copy, shard))
            return copy

    def _may_take(self) -> bool:
        return self.folder not in _failed and time.monotonic() >= _full_until.get(self.folder, 0.0)

    @contextmanager
    def _reserved(self, num_bytes: int) -> Iterator[BinaryIO | None]:
        """A file that holds so many bytes of room while it is written, and is gone afterwards if it was not renamed.

        None without room. It is locked all the while, by which the next writer knows that it is not abandoned.
        """
        with self._locked("room"):
            has_room = self._make_room(num_bytes)
            path = os.path.join(self.folder, uuid.uuid4().hex + _PARTIAL)
            partial = open(path, "xb") if has_room else None  # noqa: SIM115
            try:
                if partial is not None:
                    fcntl.flock(partial, fcntl.LOCK_EX)
                    partial.truncate(num_bytes)
            except OSError:
                os.unlink(path)
                raise
        if partial is None:
            self._note_full()
            yield None
            return
        with partial:
            try:
                yield partial
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def _note_full(self) -> None:
        if self.folder not in _full_until:
            logger.warning(
                "%s: no room for more within %.1f GiB and with %.0f %% of the disk free; what it lacks is read in S3. "
                "More room: --feed.cache-gib, --feed.cache-folder",
                self.folder,
                self.max_bytes / 2**30,
                100 * KEPT_FREE_RATIO,
            )
        _full_until[self.folder] = time.monotonic() + _LOOK_AGAIN_S

    def _make_room(self, num_bytes: int) -> bool:
        """Remove the copies that were longest not read, until so many bytes fit in; nothing if they never would."""
        copies, num_held = [], 0
        for entry in list(os.scandir(self.folder)):
            if entry.name.endswith(_PARTIAL) and _is_abandoned(entry.path):
                os.unlink(entry.path)
            elif entry.name.endswith((_SUFFIX, _PARTIAL)):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                num_held += found.st_size
                if entry.name.endswith(_SUFFIX):
                    copies.append((found.st_mtime, found.st_size, entry.path))
        disk = shutil.disk_usage(self.folder)
        too_many = max(
            num_held + num_bytes - self.max_bytes,
            num_bytes + int(KEPT_FREE_RATIO * disk.total) - disk.free,
        )
        leaving = []
        for read_at, size, path in sorted(copies):
            if too_many <= 0 or time.time() - read_at < IN_USE_S:
                break
            leaving.append(path)
            too_many -= size
        if too_many > 0:
            return False
        for path in leaving:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return True

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone among the node's processes and their threads; the lock of one that dies is free at once."""
        with open(os.path.join(self.folder, f"{name}.lock"), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_whole(copy: BinaryIO, shard: StoredFile) -> bool:
    if os.fstat(copy.fileno()).st_size != shard.num_bytes:
        return False
    identity = _identity(copy, shard)
    if identity not in _hashed:
        digest = hashlib.sha256()
        while chunk := copy.read(_CHUNK_BYTES):
            digest.update(chunk)
        copy.seek(0)
        if digest.hexdigest() != shard.sha256:
            return False
        _hashed.add(identity)
    return True


def _identity(copy: BinaryIO, shard: StoredFile) -> tuple[str, int, int]:
    found = os.fstat(copy.fileno())
    return shard.sha256, found.st_dev, found.st_ino


def _read_checked(source: str, shard: StoredFile) -> bytes | None:
    """The shard's content; None if it is not what the manifest says, at the second time either."""
    for _ in range(2):
        content = storage.read_bytes(source, shard.num_bytes + 1)
        if storage.sha256_of(content) == shard.sha256:
            return content
    _damaged_there.add(shard.sha256)
    logger.warning("%s differs from its manifest (sha256); its row groups are read and checked one by one", source)
    return None


def _is_abandoned(path: str) -> bool:
    """Whether no living process holds a file that is being written."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False
