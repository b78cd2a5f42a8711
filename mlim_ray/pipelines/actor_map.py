"""A function with a model in it over numbered pieces of work: Ray Data actors, which keep the model between pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from mlim_ray.data.storage import StorageError
from mlim_ray.pipelines.cluster import Cluster

_FAILURES = {kind.__name__: kind for kind in (ValueError, StorageError)}
_ACTOR_BYTES = 600_000_000
"""Python, torch and Ray in a process, before any model"""
_COPIES = 3
"""of the model's weights in an actor: as they arrive, as they are used, and about as much for states"""
_SHARE_OF_MEMORY = 0.6
# Actors are asked for their next piece while they work on one.
_PIECES_IN_FLIGHT = 2

Result = TypeVar("Result")


@dataclass(frozen=True)
class ActorPlan:
    """What the actors get."""

    num_actors: int
    cpus: float
    gpus: float
    threads: int
    """of torch in each"""
    cleans_apart: bool = False
    """whether the first part of a piece is done by tasks beside the actors"""

    @property
    def line(self) -> str:
        """The plan in words."""
        where = "a GPU each, cleaning on CPUs" if self.gpus else f"{self.threads} thread(s) each"
        return f"{self.num_actors} actor(s), {where}"


def plan_actors(cluster: Cluster, num_pieces: int, model_bytes: int) -> ActorPlan:
    """One actor for each GPU; without GPUs one for each CPU, as far as memory and work go.

    Raises:
        ValueError: there are GPUs and not one CPU to clean records beside them.
    """
    if cluster.num_gpus >= 1:
        if cluster.num_cpus < 1:
            raise ValueError("cleaning records needs 1 CPU beside the GPUs and the cluster has none; add a CPU node")
        return ActorPlan(min(int(cluster.num_gpus), num_pieces), 0.0, 1.0, 1, cleans_apart=True)
    num_cpus = max(1, int(cluster.num_cpus))
    memory = float(ray.cluster_resources().get("memory", 0.0))
    fitting = int(_SHARE_OF_MEMORY * memory / (_ACTOR_BYTES + _COPIES * model_bytes))
    num_actors = max(1, min(num_cpus, num_pieces, fitting))
    threads = num_cpus // num_actors
    if cluster.growth is not None:
        threads = min(threads, int(cluster.growth.cpus_a_node))
    return ActorPlan(num_actors, float(threads), 0.0, threads)


@dataclass(frozen=True)
class ModelWork:
    """Work on numbered pieces in two parts; travels to the processes that do it."""

    first: Callable[[int], bytes]
    """needs no model; its result travels where the second part runs elsewhere"""
    start: Callable[[], Callable[[bytes], str]]
    """gives the second part, called once in each actor; results are small"""


def map_on_actors(work: ModelWork, numbers: list[int], plan: ActorPlan) -> Generator[str, None, None]:
    """The results of all `numbers`, computed in parallel and given in this order.

    An actor does both parts of a piece, unless it has a GPU that should not wait for the first. Leaving the loop early
    stops the pipeline. A ValueError or StorageError is raised here with its own message; any other exception as Ray
    reports it. An actor that dies is started again, and its pieces with it.
    """
    if not numbers:
        return
    with DataContext.current(_context(bounded=plan.cleans_apart)):
        # Not from a range: its read tasks would need a CPU beside the actors.
        pieces = ray.data.from_items(numbers, override_num_blocks=len(numbers))
        if plan.cleans_apart:
            pieces = pieces.map_batches(_First(work.first), batch_size=1, batch_format="pyarrow", num_cpus=1)
        results = pieces.map_batches(
            _Actor,
            fn_constructor_args=(None if plan.cleans_apart else work.first, work.start, plan.threads),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            compute=ActorPoolStrategy(size=plan.num_actors, max_tasks_in_flight_per_actor=_PIECES_IN_FLIGHT),
        )
        batches = iter(results.iter_batches(batch_size=None, prefetch_batches=0))
    try:
        for batch in batches:
            for result, failed in zip(batch["result"], batch["failed"], strict=True):
                if failed:
                    raise _FAILURES[str(failed)](str(result))
                yield str(result)
    finally:
        batches.close()


class _First:
    """The first part as a task of its own."""

    def __init__(self, first: Callable[[int], bytes]) -> None:
        self._first = first

    def __call__(self, batch: pa.Table) -> pa.Table:
        piece, failed, message = _attempt(lambda: self._first(batch["item"][0].as_py()))
        return pa.table({"piece": pa.array([piece], pa.large_binary()), "failed": [failed], "result": [message]})


class _Actor:
    """The second part, or both."""

    def __init__(
        self, first: Callable[[int], bytes] | None, start: Callable[[], Callable[[bytes], str]], threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._first = first
        self._start = start
        self._then: Callable[[bytes], str] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._first is None and batch["failed"][0].as_py():
            return batch.select(["result", "failed"])
        result, failed, message = _attempt(lambda: self._work(batch))
        return pa.table({"result": [message if result is None else result], "failed": [failed]})

    def _work(self, batch: pa.Table) -> str:
        if self._then is None:
            # Not in the constructor, where Ray would try a mistake of the user again and again.
            self._then = self._start()
        if self._first is not None:
            return self._then(self._first(batch["item"][0].as_py()))
        return self._then(batch["piece"][0].as_py())


def _attempt(work: Callable[[], Result]) -> tuple[Result | None, str, str]:
    """Result, kind of failure, and its message, which Ray would wrap in its own traceback."""
    try:
        return work(), "", ""
    except ValueError as error:
        return None, (StorageError if isinstance(error, StorageError) else ValueError).__name__, str(error)


def _context(*, bounded: bool) -> DataContext:
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    # Results are a few bytes, and nothing has to be kept back for them; cleaned records are many, and do.
    context.op_resource_reservation_enabled = bounded
    return context
