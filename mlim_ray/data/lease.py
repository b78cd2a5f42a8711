"""One owner for a run: a lease with a heartbeat (contract C7).

On S3 two starts within a second may both believe they won; nothing there can decide it, so this is best-effort.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Self

import psutil

from mlim_ray.data import storage

logger = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
EXPIRES_S = 60.0


class Lease:
    """Context manager that owns `folder` while it is open.

    Raises:
        ValueError: another process owns the folder and is alive.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = _path(folder)
        self._id = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        refuse_if_owned(self._folder)
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        holder = _holder(self._folder)
        # Another owner's lease stays: it came after this one had lost its own.
        if holder is not None and holder["id"] == self._id:
            storage.remove(self._path)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._write()
            except storage.StorageError as error:
                # The next beat may find the disk with room again, or the bucket back.
                logger.warning("the lease could not be renewed: %s", error)

    def _write(self) -> None:
        holder = {
            "id": self._id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "time": time.time(),
        }
        storage.write_bytes_atomically(self._path, json.dumps(holder).encode())


def refuse_if_owned(folder: str) -> None:
    """Raise ValueError if a living process owns `folder`."""
    holder = _holder(folder)
    if holder is not None and _is_alive(holder):
        raise ValueError(
            f"{folder} is in use by process {holder['pid']} on {holder['host']}; "
            f"stop it first, or wait {EXPIRES_S:.0f} s after it died"
        )


def _path(folder: str) -> str:
    return storage.join(folder, "lease.json")


def _holder(folder: str) -> dict[str, Any] | None:
    if not storage.exists(_path(folder)):
        return None
    holder: dict[str, Any] = json.loads(storage.read_bytes(_path(folder)))
    return holder


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        try:
            process = psutil.Process(holder["pid"])
            # A zombie has ended, however long its parent takes to notice.
            return process.status() != psutil.STATUS_ZOMBIE and process.create_time() == holder["process_started"]
        except psutil.NoSuchProcess:
            return False
    return bool(time.time() - holder["time"] < EXPIRES_S)
