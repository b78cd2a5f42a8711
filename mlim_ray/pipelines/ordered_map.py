"""A function over numbered pieces of work as a Ray Data pipeline, its results in the order of the numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import ray.data
from ray.data import DataContext

from mlim_ray.data.storage import StorageError

_FAILURES = {kind.__name__: kind for kind in (ValueError, StorageError)}
# Ray Data registers all tasks of a pipeline, about a millisecond each, before the first one starts.
_TASKS_PER_PIPELINE = 1_000


def map_in_order(work: Callable[[int], str], num_pieces: int) -> Generator[str, None, None]:
    """`work(0)`, `work(1)`, ... computed in parallel, one CPU each, and given in this order.

    `work` and its results travel between processes: keep both small. Leaving the loop early stops the
    pipeline. A ValueError or StorageError of `work` is raised here with its own message; any other exception as
    Ray reports it.
    """
    for first in range(0, num_pieces, _TASKS_PER_PIPELINE):
        yield from _run(work, range(first, min(first + _TASKS_PER_PIPELINE, num_pieces)))


def _run(work: Callable[[int], str], numbers: range) -> Generator[str, None, None]:
    with DataContext.current(_context()):
        # Not from a range: its read tasks would take half of the CPUs for themselves.
        pieces = ray.data.from_items(list(numbers), override_num_blocks=len(numbers))
        results = pieces.map_batches(_Piece(work), batch_size=1, num_cpus=1)
        batches = iter(results.iter_batches(batch_size=None, prefetch_batches=0))
    try:
        for batch in batches:
            result, failed = str(batch["result"][0]), str(batch["failed"][0])
            if failed:
                raise _FAILURES[failed](result)
            yield result
    finally:
        batches.close()


class _Piece:
    """Ray Data hands a task its piece as a batch of one number."""

    def __init__(self, work: Callable[[int], str]) -> None:
        self._work = work

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[str]]:
        try:
            return {"result": [self._work(int(batch["item"][0]))], "failed": [""]}
        except ValueError as error:
            # Ray would wrap it in its own traceback, and the message is what a person needs.
            kind = StorageError if isinstance(error, StorageError) else ValueError
            return {"result": [str(error)], "failed": [kind.__name__]}


def _context() -> DataContext:
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    # Results are a few bytes. To bound what they may fill, Ray Data would start one task, a second when that one has
    # ended, and every later one a fifth of a second after a core has become free.
    context.op_resource_reservation_enabled = False
    return context
