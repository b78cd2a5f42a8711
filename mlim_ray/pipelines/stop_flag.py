"""A flag that the driver raises and every worker sees: save a checkpoint and end, to be resumed."""

import time
from typing import Any

import ray
import ray.train

from mlim_ray.training.control import Control
from mlim_ray.training.metrics import OF_THE_MACHINE

_ASKED_EVERY_S = 0.5
_MOST_STEPS_UNSAVED = 5
"""once a node is about to be taken away"""


class _Flag:
    """Holds the flag; an actor, since a run's folder may be in a bucket and is slow to ask."""

    def __init__(self) -> None:
        self._is_raised = False

    def hoist(self) -> None:
        self._is_raised = True

    def is_raised(self) -> bool:
        return self._is_raised


class StopFlag:
    """The driver's end of the flag; `handle` travels to the workers."""

    def __init__(self) -> None:
        self.handle: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Flag).remote()

    def hoist(self) -> None:
        """Ask the run to stop, without waiting; to be asked again, for a flag whose node is lost comes back lowered."""
        self.handle.hoist.remote()


class TrainControl(Control):
    """A Ray Train worker's control: the driver's flag, spot notices, and a report to Ray now and then.

    Ray's own questions and answers are barriers, so all workers must ask equally often: the first one says when.

    Args:
        flag: the handle of a `StopFlag`; None where nobody asks for a stop.
        report_every_s: seconds between reports.
    """

    def __init__(self, flag: Any, report_every_s: float) -> None:
        self._flag = flag
        self._is_first = ray.train.get_context().get_world_rank() == 0
        self._asked: Any = None
        self._stops = False
        self._next_question = time.monotonic()
        self._report_every_s = report_every_s
        self._next_meeting = time.monotonic() + report_every_s
        self._steps_since_meeting = 0
        self._is_preempted = False

    def wants_stop(self) -> bool:
        """The first worker asks for the flag from time to time, without waiting for the answer."""
        if self._flag is None or not self._is_first or self._stops:
            return self._stops
        if self._asked is None:
            if time.monotonic() >= self._next_question:
                self._asked = self._flag.is_raised.remote()
            return False
        ready, _ = ray.wait([self._asked], timeout=0)
        if ready:
            try:
                self._stops = ray.get(self._asked)
            except ray.exceptions.RayActorError:
                # The flag's node was lost; the driver raises it again.
                self._stops = False
            self._asked, self._next_question = None, time.monotonic() + _ASKED_EVERY_S
        return self._stops

    def wants_meeting(self) -> bool:
        """Every `report_every_s`, as the first worker's clock says; every few steps once a node is about to go."""
        self._steps_since_meeting += 1
        is_late = self._is_preempted and self._steps_since_meeting >= _MOST_STEPS_UNSAVED
        return self._is_first and (is_late or time.monotonic() >= self._next_meeting)

    def meet(self, line: dict[str, Any] | None) -> bool:
        """Report to Ray; a checkpoint is due when a node is about to be taken away, and each time from then on."""
        self._steps_since_meeting = 0
        if line is not None:
            ray.train.report({name: value for name, value in line.items() if not name.startswith(OF_THE_MACHINE)})
        preempted = ray.train.get_preemption_info()
        if preempted is not None:
            # What is learned from now on is redone elsewhere, so little of it goes unsaved.
            self._is_preempted = True
            self._report_every_s = min(self._report_every_s, _ASKED_EVERY_S)
        self._next_meeting = time.monotonic() + self._report_every_s
        return preempted is not None
