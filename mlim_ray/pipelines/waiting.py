"""Waiting for tasks so that signals are heard: `ray.wait` and `ray.get` tell of none before they return."""

from collections.abc import Sequence
from typing import Any

import ray

_HEARD_EVERY_S = 1.0


def wait_for_one(tasks: Sequence[Any]) -> Any:
    """A task that has ended. Raises what a signal's handler raised, within a second."""
    while True:
        ready = ended_within(tasks, _HEARD_EVERY_S)
        if ready:
            return ready[0]


def ended_within(tasks: Sequence[Any], timeout_s: float) -> list[Any]:
    """One task that ended within this time, or none. Raises what a signal's handler raised, when the time is over."""
    try:
        ready, _ = ray.wait(list(tasks), timeout=timeout_s)
    except SystemError as error:
        # What a handler raises within Ray's compiled code comes out as the cause of another error.
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
    return ready


def result_of(task: Any) -> Any:
    """What a task gives, as `ray.get`. Raises what the task raised, or a signal's handler within a second."""
    return ray.get(wait_for_one([task]))
