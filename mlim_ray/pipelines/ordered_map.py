"""A function over numbered pieces of work as a Ray Data pipeline, its results in the order of the numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import DataContext

from mlim_ray.data.storage import StorageError

_FAILURES = {kind.__name__: kind for kind in (ValueError, StorageError)}
# Between two tasks a core stands idle for a fifth of a second, so small pieces share a task.
_MOST_PIECES_PER_TASK = 8
# Ray Data registers all tasks of a pipeline, about a millisecond each, before the first one starts.
_TASKS_PER_PIPELINE = 1_000


def map_in_order(work: Callable[[int], str], num_pieces: int) -> Generator[str, None, None]:
    """`work(0)`, `work(1)`, ... computed in parallel, one CPU each, and given in this order.

    `work` and its results travel between processes: keep both small. Leaving the loop early stops the
    pipeline. A ValueError or StorageError of `work` is raised here with its own message; any other exception as
    Ray reports it.
    """
    tasks = _divide(num_pieces, max(1, int(ray.cluster_resources().get("CPU", 1))))
    for first in range(0, len(tasks), _TASKS_PER_PIPELINE):
        yield from _run(work, tasks[first : first + _TASKS_PER_PIPELINE])


def _divide(num_pieces: int, num_cpus: int) -> list[dict[str, int]]:
    """The pieces of each task: many at first and ever fewer, so that all cores come to their end together.

    The first task has one: until it has returned, Ray Data starts no other, not knowing what they give.
    """
    tasks, start = [], 0
    while start < num_pieces:
        share = -(-(num_pieces - start) // (2 * num_cpus))
        stop = start + (min(_MOST_PIECES_PER_TASK, share) if start else 1)
        tasks.append({"start": start, "stop": stop})
        start = stop
    return tasks


def _run(work: Callable[[int], str], tasks: list[dict[str, int]]) -> Generator[str, None, None]:
    with DataContext.current(_quiet_context()):
        # Not from a range: its read tasks would take half of the CPUs for themselves.
        pieces = ray.data.from_items(tasks, override_num_blocks=len(tasks))
        results = pieces.map_batches(_Pieces(work), batch_size=1, num_cpus=1)
        batches = iter(results.iter_batches(batch_size=None, prefetch_batches=0))
    try:
        for batch in batches:
            for result, failed in zip(batch["result"], batch["failed"], strict=True):
                if failed:
                    raise _FAILURES[str(failed)](str(result))
                yield str(result)
    finally:
        batches.close()


class _Pieces:
    """Ray Data hands a task its pieces as a batch of one pair of numbers."""

    def __init__(self, work: Callable[[int], str]) -> None:
        self._work = work

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        results: list[str] = []
        for number in range(int(batch["start"][0]), int(batch["stop"][0])):
            try:
                results.append(self._work(number))
            except ValueError as error:
                # Ray would wrap it in its own traceback, and the message is what a person needs.
                kind = StorageError if isinstance(error, StorageError) else ValueError
                return {"result": [*results, str(error)], "failed": [""] * len(results) + [kind.__name__]}
        return {"result": results, "failed": [""] * len(results)}


def _quiet_context() -> DataContext:
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    return context
