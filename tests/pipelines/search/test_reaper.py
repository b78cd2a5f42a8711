"""Placement groups whose maker died are freed while the driver lives, without a dashboard; others are left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from mlim_ray.pipelines.search.reaper import Reaper, groups_of_actors

pytestmark = pytest.mark.cluster


class Controller:
    """Makes a group as Ray Train's controller does."""

    def make(self) -> str:
        group = placement_group([{"CPU": 0.5}])
        ray.get(group.ready())
        return str(group.id.hex())


def made() -> dict[str, bool]:
    """Groups of actors, and whether their maker is dead."""
    return {group.placement_group_id.hex(): group.creator_actor_dead for group in groups_of_actors()}


def wait_for(is_so: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(600):
        if is_so():
            return
        tick.wait(0.1)
    raise AssertionError(made())


@pytest.mark.usefixtures("local_ray")
def test_only_what_the_dead_had_reserved_is_freed() -> None:
    own = placement_group([{"CPU": 0.5}])
    living, dying = (ray.remote(num_cpus=0)(Controller).remote() for _ in range(2))
    kept, orphan = ray.get([living.make.remote(), dying.make.remote()])
    assert made() == {kept: False, orphan: False}
    ray.kill(dying)
    wait_for(lambda: made().get(orphan, False))
    reaper = Reaper()
    reaper.on_step_end(0, [])
    wait_for(lambda: orphan not in made())
    assert made() == {kept: False}

    # At the end of a search no trial is left, whatever its maker does.
    reaper.on_experiment_end([])
    wait_for(lambda: not made())
    states = {group: entry["state"] for group, entry in ray.util.placement_group_table().items()}
    assert states[own.id.hex()] == "CREATED"
    remove_placement_group(own)
