"""What a process and all that it started hold in memory and have spent in processor time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

_PLASMA = "/dev/shm/plasma"
_KIB = 1024


class Memory(NamedTuple):
    """Bytes of a process tree. Pages that several of its processes share count once."""

    own: int
    """heaps and stacks: nobody but the processes can give them back"""
    store: int
    """what the object store has taken of shared memory; it never gives any back"""
    files: int
    """code and mapped files, which the system drops when memory is short"""

    @property
    def total(self) -> int:
        """All three."""
        return sum(self)


def memory_of_tree(pid: int) -> Memory:
    """Memory of a process and its descendants, Ray's included where it started one."""
    own = store = files = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":") for line in _rollup(process.pid).splitlines()[1:])
            # Shared pages are the object store's, and it is asked itself: what no process has mapped at the
            # moment is in no one's share.
            own += int(fields["Pss_Anon"].split()[0]) * _KIB
            files += int(fields["Pss_File"].split()[0]) * _KIB
            store = max(store, _store_bytes(process.pid))
    return Memory(own, store, files)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its living descendants."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class MemoryPeak:
    """The greatest memory that this process's tree was seen with while the block ran."""

    def __init__(self, interval_s: float = 0.5) -> None:
        self.peak = Memory(0, 0, 0)
        """the sample with the most of `own` and `store` together"""
        self.peak_total = 0
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            found = memory_of_tree(os.getpid())
            self.peak = max(self.peak, found, key=lambda memory: memory.own + memory.store)
            self.peak_total = max(self.peak_total, found.total)
            if self._stop.wait(self._interval_s):
                return


def _tree(pid: int) -> Iterator[psutil.Process]:
    root = psutil.Process(pid)
    yield root
    with contextlib.suppress(psutil.Error):
        yield from root.children(recursive=True)


def _rollup(pid: int) -> str:
    return Path(f"/proc/{pid}/smaps_rollup").read_text()


def _store_bytes(pid: int) -> int:
    """Room that an object store's file really takes, seen through whoever has it open: it has no name any more."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith(_PLASMA):
                return os.stat(path).st_blocks * 512
    return 0
