"""Where a task on the cluster writes how far it is, for the driver to show."""

import time
from collections.abc import Callable
from typing import Any

import ray

from mlim_ray.pipelines.waiting import ended_within

_LOOKED_AT_EVERY_S = 0.5
_WRITTEN_EVERY_S = 0.2

OnProgress = Callable[[str, int, int | None], None]


class _Board:
    def __init__(self) -> None:
        self._line: tuple[str, int, int] | None = None

    def write(self, what: str, done: int, total: int) -> None:
        self._line = what, done, total

    def read(self) -> tuple[str, int, int] | None:
        return self._line


class Board:
    """The driver's end; `handle` travels to a task, which writes with a `BoardWriter`."""

    def __init__(self) -> None:
        self.handle: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote()

    def wait(self, task: Any, on_progress: OnProgress) -> Any:
        """The task's result; what it writes meanwhile is passed on. Raises what the task raised."""
        while True:
            ready = ended_within([task], _LOOKED_AT_EVERY_S)
            try:
                line = ray.get(self.handle.read.remote())
            except ray.exceptions.RayActorError:
                # Its node was lost; it comes back empty.
                line = None
            if line is not None:
                on_progress(*line)
            if ready:
                return ray.get(task)


class BoardWriter:
    """The task's end: never waits, and writes no more often than anybody looks."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._next = 0.0
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say what is being done, and how many steps of how many are done."""
        now = time.monotonic()
        if what == self._what and done < total and now < self._next:
            return
        self._what, self._next = what, now + _WRITTEN_EVERY_S
        self._handle.write.remote(what, done, total)
