"""Reservations whose maker has died, freed from the driver.

A trial of several workers reserves their CPUs or GPUs in a placement group that Ray Train's controller makes. If the
controller dies with the trial's process, Ray keeps the group for as long as the driver lives; Ray Train's own remedy
asks the dashboard, which may not run, and leaves a process behind. The head node's own table tells who made a group
and whether the maker is dead, dashboard or not.
"""

import time
from typing import Any

import ray
import ray._private.state
from ray import tune
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, PlacementGroupID, remove_placement_group

_EVERY_S = 1.0
_NO_ACTOR = (b"", ray.ActorID.nil().binary())
"""the maker of a group that the driver itself made"""


class Reaper(tune.Callback):
    """Frees what dead trials had reserved: while a search runs, so that the next trial has room, and at its end."""

    def __init__(self) -> None:
        self._next = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune several times a second."""
        if time.monotonic() >= self._next:
            for group in groups_of_actors():
                if group.creator_actor_dead:
                    _remove(group)
            self._next = time.monotonic() + _EVERY_S

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Called once no trial is left: every group that one of this driver's actors made is an orphan."""
        for group in groups_of_actors():
            _remove(group)


def groups_of_actors() -> list[Any]:
    """The placement groups that actors of this driver made and that are not removed yet, as Ray's own records."""
    accessor = ray._private.state.state._connect_and_get_accessor()
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    groups = map(PlacementGroupTableData.FromString, accessor.get_placement_group_table())
    return [
        group
        for group in groups
        if group.creator_job_id == job
        and group.creator_actor_id not in _NO_ACTOR
        and not group.is_detached
        and group.state != PlacementGroupTableData.REMOVED
    ]


def _remove(group: Any) -> None:
    remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
