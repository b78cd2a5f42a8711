"""Feeding workers: Ray Data as the parallel map over step numbers, or a set that all workers share in memory.

Streaming: one task reads and masks the steps of a few chunks for one worker. Ray Data runs the tasks ahead of the
worker and keeps their order; which records a step holds is decided by its number alone (contract C2), so the stream can
be cut and resumed anywhere. There is no epoch boundary to stall at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records, join_records
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.storage import StorageError
from mlim_ray.pipelines.cluster import quiet
from mlim_ray.training.batch import Batch
from mlim_ray.training.stream import TRAIN_SPLIT, OnLeftOut, ShardReader, ignore, present, read_groups

# A task costs Ray Data tens of milliseconds whatever it does: as much work for each as its memory allows.
TASK_BYTES = 64 << 20
"""of decoded records that a task gives"""
PREFETCHED_TASKS = 2
"""that lie ready on a worker's node"""
# One fits beside the workers of an elastic run on each node.
_TASK_CPUS = 0.9
# Ray Data registers all tasks of a pipeline, about a millisecond each, before the first one starts.
_TASKS_PER_PIPELINE = 500
_RESIDENT_GROUPS_PER_TASK = 32
_FAILED = "failed"
_FAILURES = (DamagedShardError, StorageError)

Columns = dict[str, NDArray[Any]]


def stream_batches(
    reader: ShardReader, start_step: int, stop_step: int, on_left_out: OnLeftOut = ignore
) -> Iterator[Batch]:
    """This worker's part of the batches of steps [start_step, stop_step), decoded and masked in Ray Data tasks.

    Raises what `ShardReader.read_chunks` raises, with its own message.
    """
    # Where pictures change their size a pipeline ends, for the rows of a task are arrays of one size.
    for steps in reader.masking.runs(start_step, stop_step):
        arrived = _arrivals(reader, steps.start, steps.stop)
        yield from _cut_at_steps(arrived, reader, steps.start, steps.stop, on_left_out)


def put_resident(prepared: PreparedSet, *, skips_damaged: bool = False) -> "ray.ObjectRef[Records]":
    """Decode the training split once with Ray Data and put it into the object store, where every trial reads it.

    Raises what `read_groups` raises, with its own message.
    """
    num_groups = prepared.num_groups(TRAIN_SPLIT)
    num_tasks = -(-num_groups // _RESIDENT_GROUPS_PER_TASK)
    _keep_order()
    groups = ray.data.range(num_tasks, override_num_blocks=num_tasks).map_batches(
        _ReadGroups(prepared, num_groups, skips_damaged), batch_size=1, num_cpus=1
    )
    parts = _unless_failed(groups.iter_batches(batch_size=None, batch_format="numpy"))
    return ray.put(join_records([Records(*(part[name] for name in Records._fields)) for part in parts]))


def resident_bytes(num_records: int, image_size: int, max_tokens: int) -> int:
    """Memory that a decoded training split of so many records takes."""
    return num_records * (image_size**2 * 3 + max_tokens * 6 + 10)


def _arrivals(reader: ShardReader, start_step: int, stop_step: int) -> Iterator[Columns]:
    """What the tasks return, in step order."""
    tasks = _divide(reader, reader.chunk_of(start_step), reader.chunk_of(stop_step - 1) + 1)
    for first in range(0, len(tasks), _TASKS_PER_PIPELINE):
        part = [{"start": chunks.start, "stop": chunks.stop} for chunks in tasks[first : first + _TASKS_PER_PIPELINE]]
        _keep_order()
        read = ray.data.from_items(part, override_num_blocks=len(part)).map_batches(
            _ReadChunks(reader, start_step, stop_step), batch_size=1, num_cpus=_TASK_CPUS
        )
        yield from _unless_failed(
            read.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=PREFETCHED_TASKS)
        )


def _divide(reader: ShardReader, start: int, stop: int) -> list[range]:
    """The chunks of each task: a single one at first, so that the first batch comes soon, and then more and more."""
    image, text = reader.prepared.manifest.image, reader.prepared.manifest.text
    most = max(1, TASK_BYTES // resident_bytes(reader.chunk_records, image.size, text.max_tokens))
    tasks: list[range] = []
    while start < stop:
        tasks.append(range(start, min(start + min(most, 1 + len(tasks) // 2), stop)))
        start = tasks[-1].stop
    return tasks


@dataclass(frozen=True)
class _ReadChunks:
    """Ray Data's map function: a run of chunks in, their masked rows out."""

    reader: ShardReader
    start_step: int
    stop_step: int

    def __call__(self, block: Columns) -> Columns:
        chunks = range(int(block["start"][0]), int(block["stop"][0]))
        try:
            batch, step_of_row = self.reader.read_chunks(chunks, self.start_step, self.stop_step)
        except _FAILURES as error:
            return _failure(error)
        return {**batch._asdict(), "step": step_of_row}


@dataclass(frozen=True)
class _ReadGroups:
    """Ray Data's map function: the number of a run of row groups in, their records out."""

    prepared: PreparedSet
    num_groups: int
    skips_damaged: bool

    def __call__(self, block: Columns) -> Columns:
        first = int(block["id"][0]) * _RESIDENT_GROUPS_PER_TASK
        groups = range(first, min(first + _RESIDENT_GROUPS_PER_TASK, self.num_groups))
        try:
            return read_groups(self.prepared, groups, skips_damaged=self.skips_damaged)._asdict()
        except _FAILURES as error:
            return _failure(error)


def _failure(error: ValueError) -> Columns:
    """What a task gives instead of records: Ray would wrap the error in its own traceback."""
    return {_FAILED: np.array([isinstance(error, DamagedShardError)]), "message": np.array([str(error)])}


def _unless_failed(arrived: Iterable[Columns]) -> Iterator[Columns]:
    """What tasks give, up to the first that failed, whose error is raised."""
    for columns in arrived:
        if _FAILED in columns:
            is_damaged, message = columns[_FAILED][0], str(columns["message"][0])
            raise DamagedShardError(message) if is_damaged else StorageError(message)
        yield columns


def _cut_at_steps(
    arrived: Iterator[Columns], reader: ShardReader, start_step: int, stop_step: int, on_left_out: OnLeftOut
) -> Iterator[Batch]:
    """Batches of single steps from pieces of any length, in step order.

    How many rows a step has is known from the order, so a piece that Ray Data split, or a step without rows for this
    worker, is told from a lost one. Rows that a task could not read arrive too, and are left out here.
    """
    waiting: Columns | None = None
    place = 0
    empty: Batch | None = None
    for step in range(start_step, stop_step):
        groups = reader.order.rows_at(step, reader.lanes).group
        num_rows = len(groups)
        parts = []
        while num_rows > 0:
            if waiting is None or place == len(waiting["step"]):
                waiting, place = next(arrived), 0
                continue
            stop = min(place + num_rows, len(waiting["step"]))
            part = slice(place, stop)
            if (waiting["step"][part] != step).any():
                raise RuntimeError(f"the feed gave rows of step {waiting['step'][place]} at step {step}")
            parts.append(Batch(*(waiting[name][part] for name in Batch._fields)))
            num_rows, place = num_rows - (stop - place), stop
        if parts:
            batch = parts[0] if len(parts) == 1 else Batch(*map(np.concatenate, zip(*parts, strict=True)))
            empty = batch.take(slice(0, 0))
            yield present(batch, step, groups, on_left_out)
        else:
            yield empty if empty is not None else reader.read_chunks(range(0), step, step)[0]


def _keep_order() -> None:
    """Ray Data's settings are the process's own: they are set where the stream is made."""
    quiet()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    # Streams are closed before their end when a run stops early; only so is their prefetching thread ended too.
    context.actor_prefetcher_enabled = True
