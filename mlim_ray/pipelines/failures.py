"""What goes wrong in workers: written down, told in words, and tried again only where that can help."""

import json
import time
from typing import Any

import ray.exceptions
import ray.train
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from mlim_ray.data import storage

_FILE = "restarts.jsonl"


class NoteFailures(ray.train.UserCallback):
    """Lives in Ray Train's controller: one line in `restarts.jsonl` each time that workers failed.

    A ValueError is a mistake that the next try would meet again, so it ends the run.
    """

    def __init__(self, run: str) -> None:
        self._run = run

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called with the workers' errors, by rank, before they are started again."""
        mistake = next((error for error in worker_exceptions.values() if isinstance(error, ValueError)), None)
        note(self._run, {f"worker {rank}": reason(error) for rank, error in worker_exceptions.items()})
        if mistake is not None:
            raise mistake


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


def reason(error: Exception) -> str:
    """A worker's error in one line."""
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "gave no answer for train.collective_timeout_s: it hangs, or its machine does"
    inner = error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
    if isinstance(inner, ray.exceptions.RayActorError):
        return "its node was taken away" if inner.preempted else "its process died"
    lines = str(inner).strip().splitlines()
    return f"{type(inner).__name__}: {lines[-1] if lines else ''}"


def mistake_of(error: BaseException) -> ValueError | None:
    """The user's mistake that ended the training, if it was one."""
    if isinstance(error, ray.train.ControllerError):
        error = error.controller_failure
    if isinstance(error, ray.train.WorkerGroupError):
        return next((each for each in error.worker_failures.values() if isinstance(each, ValueError)), None)
    return error if isinstance(error, ValueError) else None


def has_died(error: BaseException) -> bool:
    """Whether processes or nodes died, rather than code failing."""
    if isinstance(error, ray.train.WorkerGroupError):
        return all(
            isinstance(
                each, (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError, ray.exceptions.RayActorError)
            )
            for each in error.worker_failures.values()
        )
    return isinstance(error, ray.exceptions.RayActorError)
