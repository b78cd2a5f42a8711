"""Wall-clock figures of a run: records per second, and the shares of its time that are no training."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Times what the loop does between two logged lines."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._spent_s: dict[str, float] = {}
        self._last_samples: int | None = None

    @contextlib.contextmanager
    def spending(self, on: str) -> Iterator[None]:
        """Count the block's time as spent on `on`."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.add(on, time.perf_counter() - before)

    def add(self, on: str, seconds: float) -> None:
        """Count `seconds` as spent on `on`."""
        self._spent_s[on] = self._spent_s.get(on, 0.0) + seconds

    def read_and_reset(self, samples: int) -> dict[str, float]:
        """The figures since the last call; the first interval of a start, with its warm-up, gives no rate.

        `time/data_wait_ratio`: waiting for the feed. `time/checkpoint_wait_ratio`: what a step waited for checkpoints.
        `time/communication_ratio`: in collectives with the other workers, waiting for a slower one included.
        """
        now = time.perf_counter()
        elapsed = max(now - self._last, 1e-9)
        figures = {"time/elapsed_s": now - self._start}
        for name in ("data_wait", "checkpoint_wait", "communication"):
            figures[f"time/{name}_ratio"] = self._spent_s.get(name, 0.0) / elapsed
        if self._last_samples is not None:
            figures["time/samples_per_s"] = (samples - self._last_samples) / elapsed
        self._last, self._spent_s, self._last_samples = now, {}, samples
        return figures
