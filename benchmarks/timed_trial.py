"""A search's trial that writes down what it spends its time on; only benchmarks run it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mlim_ray.evaluation.measures import Measurer
from mlim_ray.model import MlimModel
from mlim_ray.pipelines.search.searcher import NUMBER
from mlim_ray.pipelines.search.trial import PretrainTrial

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
    """Times the training and the measuring of each call, and the call."""

    def step(self) -> dict[str, Any]:
        """To the next rung, timed."""
        with self._timed("step"):
            return super().step()

    def _begin(self, config: dict[str, Any]) -> None:
        self._number = config[NUMBER]
        self._shared_measurer: Measurer = self.__dict__.setdefault("_shared_measurer", self._measurer)
        self._measurer = self._timed_measures  # type: ignore[assignment]
        with self._timed("begin"):
            super()._begin(config)
        assert self._training is not None
        trainer = self._training._trainer
        run = trainer.run

        def timed_run(*args: Any, **kwargs: Any) -> None:
            start = time.monotonic()
            run(*args, **kwargs)
            self._training_s += time.monotonic() - start

        trainer.run = timed_run  # type: ignore[method-assign]

    def _timed_measures(self, model: MlimModel) -> dict[str, float]:
        start = time.monotonic()
        measures = self._shared_measurer(model)
        self._measuring_s += time.monotonic() - start
        return measures

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        self._training_s = self._measuring_s = 0.0
        start = time.monotonic()
        yield
        call = Call(self._number, os.getpid(), kind, start, time.monotonic(), self._training_s, self._measuring_s)
        with open(os.environ[TIMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(call) + "\n")
