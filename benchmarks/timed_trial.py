"""A search's trial that writes down what it spends its time on; only benchmarks run it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mlim_ray.evaluation.measures import Measurer
from mlim_ray.pipelines.search.trial import PretrainTrial
from mlim_ray.pipelines.search.trial_job import TrialJob
from mlim_ray.pipelines.search.trial_words import NUMBER
from mlim_ray.training.trainer import Trainer

TIMES = "MLIM_RAY_BENCHMARK_TIMES"
"""environment variable: the file that times are appended to; set before Ray starts, whose processes inherit it"""


class Call(NamedTuple):
    """One call of Tune: the beginning of a trial, or the way to its next rung. Times are of the machine's own clock."""

    number: int
    pid: int
    kind: str
    """begin or step"""
    start: float
    stop: float
    training_s: float
    measuring_s: float


def read_calls(path: str) -> list[Call]:
    """All calls, in the order in which they ended."""
    with open(path, encoding="utf-8") as file:
        return [Call(*json.loads(line)) for line in file]


class TimedTrial(PretrainTrial):
    """Times each call, and what of it is training and measuring."""

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Called once a process, which then times all that it trains and measures."""
        self._spent_s = {"training": 0.0, "measuring": 0.0}
        self._time_calls(Trainer, "run", "training")
        self._time_calls(Measurer, "__call__", "measuring")
        with self._timed("begin", config[NUMBER]):
            super().setup(config, job)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process, timed."""
        with self._timed("begin", new_config[NUMBER]):
            return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        """To the next rung, timed."""
        with self._timed("step", self._number):
            return super().step()

    def _time_calls(self, owner: type, name: str, what: str) -> None:
        call = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            result = call(*args, **kwargs)
            self._spent_s[what] += time.monotonic() - start
            return result

        setattr(owner, name, timed)

    @contextmanager
    def _timed(self, kind: str, number: int) -> Iterator[None]:
        self._number = number
        self._spent_s |= dict.fromkeys(self._spent_s, 0.0)
        start = time.monotonic()
        yield
        call = Call(number, os.getpid(), kind, start, time.monotonic(), *self._spent_s.values())
        with open(os.environ[TIMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(call) + "\n")
