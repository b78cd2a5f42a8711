"""`damaged.jsonl`: the row groups whose records a run leaves out, each named once, with the step from which on.

It is written whole with each checkpoint, from what all workers met up to its step, so that a run that is resumed, or
has another number of workers, ends with the same lines.
"""

import json
import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.training.distributed import gather_objects, rank
from mlim_ray.training.stream import TRAIN_SPLIT, read_groups

DAMAGED_FILE = "damaged.jsonl"
MOST_LEFT_OUT_RATIO = 0.1
"""a run that lacks more of its records stops (our choice): it would learn from another set than it says"""

logger = logging.getLogger(__name__)


class LeftOutGroup(NamedTuple):
    """A row group that could not be read."""

    first_step: int
    """of the run's steps, counted from 1 as in `metrics.jsonl`, the first whose batch lacks records of it"""
    shard: str
    """relative to the set"""
    row_group: int
    """within the shard"""
    num_records: int
    problem: str


def read_left_out(run: str) -> list[LeftOutGroup]:
    """The row groups that a run has left out, by the step from which on."""
    path = storage.join(run, DAMAGED_FILE)
    try:
        content = storage.read_bytes(path)
    except storage.MissingPathError:
        return []
    return [LeftOutGroup(**json.loads(line)) for line in content.splitlines()]


def describe_left_out(run: str) -> str | None:
    """What a run has left out, in one line; None if nothing."""
    left_out = read_left_out(run)
    if not left_out:
        return None
    num_records = sum(entry.num_records for entry in left_out)
    return (
        f"left out: {num_records:,} damaged records in {len(left_out):,} row groups, which "
        f"{storage.join(run, DAMAGED_FILE)} names"
    )


class LeftOutLog:
    """What a worker's batches lack; the first worker writes what all of them met.

    Args:
        run: the run folder.
        prepared: the set that the run reads.
        start_step: where this start of the run begins; what an earlier one met past it is met again.
    """

    def __init__(self, run: str, prepared: PreparedSet, start_step: int) -> None:
        self._run = run
        self._prepared = prepared
        self._on_disk = read_left_out(run)
        self._known = [entry for entry in self._on_disk if entry.first_step <= start_step]
        self._met: dict[int, LeftOutGroup] = {}

    def add(self, step: int, groups: NDArray[np.int64]) -> None:
        """Note that the batch at index `step` lacks records, and the row group of each of them."""
        for group in np.unique(groups).tolist():
            if group not in self._met:
                place = self._prepared.row_group(TRAIN_SPLIT, group)
                entry = LeftOutGroup(step + 1, place.shard.path, place.index, place.num_records, self._problem(group))
                self._met[group] = entry
                logger.warning(
                    "from step %d on, %d records are left out: %s, row group %d: %s",
                    entry.first_step,
                    entry.num_records,
                    place.path,
                    entry.row_group,
                    entry.problem,
                )

    def save(self, step: int) -> None:
        """Make what was met up to `step` readable; called on every worker, with each checkpoint.

        Raises ValueError where more than MOST_LEFT_OUT_RATIO of the records are left out.
        """
        met = [entry for entry in self._met.values() if entry.first_step <= step]
        of_all = sorted(entry for part in gather_objects(met) for entry in part)
        found: dict[tuple[str, int], LeftOutGroup] = {}
        for entry in (*self._known, *of_all):
            found.setdefault((entry.shard, entry.row_group), entry)
        self._known = sorted(found.values())
        if rank() == 0 and self._known != self._on_disk:
            lines = "".join(json.dumps(entry._asdict()) + "\n" for entry in self._known)
            storage.write_bytes_atomically(storage.join(self._run, DAMAGED_FILE), lines.encode())
            self._on_disk = self._known
        num_left_out = sum(entry.num_records for entry in self._known)
        num_records = self._prepared.num_records(TRAIN_SPLIT)
        if num_left_out > MOST_LEFT_OUT_RATIO * num_records:
            raise ValueError(
                f"{num_left_out:,} of {num_records:,} training records of {self._prepared.path} are damaged, more than "
                f"{MOST_LEFT_OUT_RATIO:.0%}; {storage.join(self._run, DAMAGED_FILE)} names them. Restore the set from "
                f"a copy, or prepare it again"
            )

    def _problem(self, group: int) -> str:
        """What is wrong with it. The task that left it out only marked its records: it is looked at again here."""
        try:
            read_groups(self._prepared, range(group, group + 1))
        except DamagedShardError as error:
            return error.detail
        return "it could be read again when it was looked at once more"
