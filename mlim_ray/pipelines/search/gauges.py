"""A running trial's figures as Ray metrics, which Prometheus scrapes from each node; gone soon after the trial ends.

Ray has no call that removes a series. But a process hands each gauge that was set to its node once, with its next
report, and the node drops a series that two reports (20 s) brought no value for. So a thread sets the values of a
running trial again and again, and a trial has only to stop doing so.
"""

import functools
import math
import threading
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.metrics import Gauge

from mlim_ray.reporting.gauge_names import (
    ALL_MODES,
    DATA_WAIT,
    LEFT_OUT,
    MLM_LOSS,
    MODE,
    RECON_LOSS,
    REJECTED,
    SAMPLES,
    SAMPLES_PER_S,
    SCORE,
    TRIAL,
    GaugeName,
)

_OF_A_LINE = {
    "samples": SAMPLES,
    "time/samples_per_s": SAMPLES_PER_S,
    "time/data_wait_ratio": DATA_WAIT,
    "num_left_out": LEFT_OUT,
}
_LOSSES = {"mlm": MLM_LOSS, "recon": RECON_LOSS}
_SETS_PER_REPORT = 2.0


class TrialGauges:
    """The gauges of one trial, from its first figure until `close`.

    Args:
        trial: value of the tag.
    """

    def __init__(self, trial: str) -> None:
        self._trial = trial
        self._values = _Kept()

    def write(self, line: Mapping[str, Any]) -> None:
        """Take the figures of a line of `metrics.jsonl`."""
        for entry, gauge in _OF_A_LINE.items():
            if entry in line:
                self._set(gauge, line[entry])
        for entry, value in line.items():
            if entry.startswith("loss/") and entry != "loss/total":
                _, side, *mode = entry.split("/")
                self._set(_LOSSES[side], value, mode[0] if mode else ALL_MODES)

    def score(self, score: float) -> None:
        """Take the score of a rung."""
        self._set(SCORE, score)

    def close(self) -> None:
        """The trial ended: none of its gauges is set again."""
        self._values.close()

    def _set(self, gauge: GaugeName, value: float, mode: str | None = None) -> None:
        tags = {TRIAL: self._trial} if mode is None else {TRIAL: self._trial, MODE: mode}
        self._values.set(gauge, value, tags)


class SetGauges:
    """How many records the search's set lacks, while the search runs."""

    def __init__(self, num_rejected: int) -> None:
        self._values = _Kept()
        self._values.set(REJECTED, num_rejected, {})

    def close(self) -> None:
        """The search ended."""
        self._values.close()


class _Kept:
    """Values that stay on their nodes until `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[GaugeName, tuple[tuple[str, str], ...]], float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="gauges", daemon=True)
        self._thread.start()

    def set(self, gauge: GaugeName, value: float, tags: dict[str, str]) -> None:
        """Show `value` from now on; what is no finite number ends what was shown."""
        key = gauge, tuple(sorted(tags.items()))
        with self._lock:
            if not math.isfinite(value):
                self._values.pop(key, None)
                return
            self._values[key] = float(value)
            _gauge(gauge).set(float(value), tags)

    def close(self) -> None:
        """Set nothing again."""
        self._closed.set()
        self._thread.join()

    def _repeat(self) -> None:
        every_s = ray._config.metrics_report_interval_ms() / 1000.0 / _SETS_PER_REPORT
        while not self._closed.wait(every_s):
            with self._lock:
                for (gauge, tags), value in self._values.items():
                    _gauge(gauge).set(value, dict(tags))


@functools.cache
def _gauge(gauge: GaugeName) -> Gauge:
    """One a process: Ray's metrics are registered by name."""
    return Gauge(gauge.name, gauge.description, gauge.tags)
