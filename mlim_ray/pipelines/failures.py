"""What goes wrong in workers: written down, told in words, and tried again only where that can help."""

import errno
import json
import time
from typing import Any

import ray.exceptions
import ray.train
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from mlim_ray.data import storage
from mlim_ray.training.run_folder import RunFolder

MAX_FAILURES = 4
"""of workers without a new checkpoint between them; more will not be mended by another try (our choice)"""

_FILE = "restarts.jsonl"
_DEATHS = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError, ray.exceptions.RayActorError)
_NO_ROOM = (WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_COLLECTIVES = ("gloo", "nccl")
_NO_CPU_MEMORY = "can't allocate memory"
"""words of PyTorch"""


class TooManyFailuresError(ValueError):
    """Workers fail again and again without getting any further."""


class NoteFailures(WorkerGroupCallback):
    """Lives in Ray Train's controller: one line in `restarts.jsonl` each time that workers failed.

    Ray starts them again each time, unless this raises: on a mistake that the next try would meet again, on a disk
    that takes nothing more, and when no try gets any further.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._is_noted = False
        self._num_failures = 0
        self._newest = -1

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called whenever workers have started."""
        self._is_noted = False

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Called twice a second, until the workers that failed are ended."""
        errors: dict[int, Exception] = worker_group_status.errors
        if not errors or self._is_noted:
            return
        self._is_noted = True
        mistake = next((each for each in errors.values() if is_mistake(each)), None)
        if mistake is not None:
            raise mistake
        note(self._run, reasons(errors, len(worker_group_status.worker_statuses)))
        newest = max(RunFolder(self._run).checkpoints().steps(), default=0)
        self._num_failures = 1 if newest > self._newest else self._num_failures + 1
        self._newest = newest
        if self._num_failures > MAX_FAILURES:
            raise TooManyFailuresError(f"workers failed {self._num_failures} times at the same checkpoint")


def note(run: str, failed: dict[str, str]) -> None:
    """Add a line to the run's `restarts.jsonl`: when, and what failed why."""
    path = storage.join(run, _FILE)
    before = storage.read_bytes(path) if storage.exists(path) else b""
    line = json.dumps({"time": time.strftime("%Y-%m-%d %H:%M:%S"), "failed": failed})
    storage.write_bytes_atomically(path, before + line.encode() + b"\n")


def read_restarts(run: str) -> list[dict[str, Any]]:
    """The lines of `restarts.jsonl`, oldest first."""
    path = storage.join(run, _FILE)
    return [json.loads(line) for line in storage.read_bytes(path).splitlines()] if storage.exists(path) else []


def reasons(errors: dict[int, Exception], num_workers: int) -> dict[str, str]:
    """What failed, by worker: those that lost a partner only where nothing else tells who it was."""
    causes = {rank: error for rank, error in errors.items() if not _lost_a_partner(error)}
    if causes:
        return {f"worker {rank}": reason(error) for rank, error in sorted(causes.items())}
    silent = [rank for rank in range(num_workers) if rank not in errors]
    if silent:
        return {f"worker {rank}": "did not take part in an exchange with the others" for rank in silent}
    return {f"worker {rank}": reason(error) for rank, error in sorted(errors.items())}


def reason(error: BaseException) -> str:
    """A worker's error in one line."""
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "gave no answer for train.collective_timeout_s: it hangs, or its machine does"
    inner = error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
    if isinstance(inner, ray.exceptions.RayActorError):
        return "its node was taken away" if inner.preempted else "its process died"
    lines = str(inner).strip().splitlines() or [""]
    if isinstance(inner, ray.exceptions.OutOfMemoryError):
        return f"out of memory: {lines[0]}"
    return f"{'out of memory' if _is_out_of_memory(inner) else type(inner).__name__}: {lines[-1]}"


def one_line(error: BaseException) -> str:
    """An error in one line: the path and what the system says of it, or the first line of its own words."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _is_out_of_memory(error: BaseException) -> bool:
    # PyTorch's own is known by its name: loading PyTorch for it would take a second. Of a CPU's memory it has none.
    is_named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_named or (isinstance(error, RuntimeError) and _NO_CPU_MEMORY in str(error))


def is_mistake(error: BaseException) -> bool:
    """Whether another try would meet the same error: the user's doing, or a disk that takes nothing more."""
    return isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _DISK)


def mistake_of(error: BaseException) -> BaseException | None:
    """The mistake that ended the training, if it was one."""
    return next((each for each in _inner(error) if is_mistake(each)), None)


def has_no_room(error: BaseException) -> bool:
    """Whether workers could not be started because the cluster has no room for them."""
    return any(isinstance(each, _NO_ROOM) for each in _inner(error))


def has_died(error: BaseException) -> bool:
    """Whether processes or nodes died, rather than code failing."""
    return any(isinstance(each, _DEATHS) or _lost_a_partner(each) for each in _inner(error))


def _inner(error: BaseException) -> list[BaseException]:
    """What Ray Train wrapped."""
    if isinstance(error, ray.train.WorkerGroupError):
        return list(error.worker_failures.values())
    if isinstance(error, ray.train.ControllerError):
        return [error.controller_failure]
    return [error]


def _lost_a_partner(error: BaseException) -> bool:
    """Whether a worker only met another one's end: its connection was reset, or it waited in vain."""
    return isinstance(error, RuntimeError) and any(name in str(error).lower() for name in _COLLECTIVES)
