"""`metrics.jsonl`: one line per logged step, whole after any crash (contract C7).

On local disk it is one file; on resume, lines past the checkpoint move to `metrics.redone.jsonl`. S3 has no append:
there each start of a run writes immutable segments under `metrics/`, and an index, written after each of them, that
names those that exist; `read_metrics` joins them.
"""

import json
import os
import time
from typing import Any

from mlim_ray.data import storage

KEYS, MASKS = "data/keys", "data/masks"
"""entries of a line that say what its batches were made of (`mlim_ray.training.fingerprint`)"""
_SEGMENT_EVERY_S = 30.0
_INDEX = "index.json"

Line = dict[str, Any]

OF_THE_MACHINE = ("time/", "memory/", "machine/")
"""beginnings of the names of entries that differ from run to run, though all that is learned is the same"""


def read_metrics(run: str) -> list[Line]:
    """All metric lines of a run, one per logged step, in order; redone steps appear once."""
    if not storage.is_remote(run):
        path = storage.join(run, "metrics.jsonl")
        return _parse(storage.read_bytes(path)) if storage.exists(path) else []
    lines: list[Line] = []
    for name in _segments(run):
        # A segment of a later start begins where that start resumed: what lay past it was redone.
        after_step = int(name.removesuffix(".jsonl").split("-")[1])
        lines = [line for line in lines if line["step"] <= after_step]
        lines += _parse(storage.read_bytes(storage.join(run, "metrics", name)))
    return lines


class MetricsWriter:
    """Appends lines to a run's metrics, from `start_step` on: what an earlier try wrote past it is set aside."""

    def __init__(self, run: str, start_step: int) -> None:
        self._run = run
        self._remote = storage.is_remote(run)
        self._after_step = start_step
        self._pending: list[Line] = []
        self._last_segment = time.monotonic()
        if not self._remote:
            os.makedirs(run, exist_ok=True)
            self._set_aside_redone()
        self._names = _segments(run) if self._remote else []
        self.last_line = _last_line(run, self._names, start_step)
        """the line of the greatest step up to now; None before the first one"""

    def write(self, line: Line) -> None:
        """Add a line."""
        self.last_line = line
        if not self._remote:
            with open(os.path.join(self._run, "metrics.jsonl"), "a", encoding="utf-8") as file:
                file.write(_encoded(line))
            return
        self._pending.append(line)
        if time.monotonic() - self._last_segment > _SEGMENT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Make sure that every line written so far can be read; called with each checkpoint."""
        if not self._pending:
            return
        name = f"{len(self._names):06d}-{self._after_step:010d}.jsonl"
        content = "".join(map(_encoded, self._pending)).encode()
        storage.write_bytes_atomically(storage.join(self._run, "metrics", name), content)
        self._names.append(name)
        storage.write_bytes_atomically(storage.join(self._run, "metrics", _INDEX), json.dumps(self._names).encode())
        self._after_step = self._pending[-1]["step"]
        self._pending, self._last_segment = [], time.monotonic()

    def _set_aside_redone(self) -> None:
        path = os.path.join(self._run, "metrics.jsonl")
        if not os.path.exists(path):
            return
        lines = _parse(storage.read_bytes(path))
        redone = [line for line in lines if line["step"] > self._after_step]
        if redone:
            with open(os.path.join(self._run, "metrics.redone.jsonl"), "a", encoding="utf-8") as file:
                file.writelines(map(_encoded, redone))
        kept = "".join(_encoded(line) for line in lines if line["step"] <= self._after_step)
        storage.write_bytes_atomically(path, kept.encode())


def _last_line(run: str, names: list[str], step: int) -> Line | None:
    """The last line at or before `step`."""
    if not storage.is_remote(run):
        return max(read_metrics(run), key=lambda line: line["step"], default=None)
    for name in reversed(names):
        lines = _parse(storage.read_bytes(storage.join(run, "metrics", name)))
        # What lies past it was redone, and so was what an earlier segment has past the beginning of this one.
        lines = [line for line in lines if line["step"] <= step]
        if lines:
            return lines[-1]
    return None


def _segments(run: str) -> list[str]:
    """Names of the segments of a run on S3, oldest first."""
    try:
        names: list[str] = json.loads(storage.read_bytes(storage.join(run, "metrics", _INDEX)))
    except storage.MissingPathError:
        return []
    return names


def _encoded(line: Line) -> str:
    return json.dumps(line, allow_nan=True) + "\n"


def _parse(data: bytes) -> list[Line]:
    """Lines of JSON; a last line that a crash cut short is not one yet."""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
