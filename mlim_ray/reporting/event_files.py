"""TensorBoard's event files, from the same lines that go into `metrics.jsonl`.

One record a line, written at once and without a thread of its own: tensorboardX's `SummaryWriter` starts two for each
file, which is much for the hundreds of trials of a search. S3 has no append: there each flush writes a file of its own,
and TensorBoard reads the files of a folder one after another.
"""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from mlim_ray.data import storage

FOLDER = "tensorboard"
"""in the folder of a run or a search"""
_FLUSH_EVERY_S = 10.0


class EventFile:
    """The scalars of one run or trial: `<folder>/tensorboard/<name>/events.out.tfevents.*`.

    Args:
        folder: of the run or the search, local or on S3.
        start_step: step that this start goes on from; TensorBoard then forgets what an earlier start wrote past it.
        name: how TensorBoard lists a trial; a run has none.
    """

    def __init__(self, folder: str, start_step: int, name: str | None = None) -> None:
        place = storage.join(folder, FOLDER) if name is None else storage.join(folder, FOLDER, name)
        self._copy_to = place if storage.is_remote(folder) else None
        self._folder = tempfile.mkdtemp(prefix="mlim-events-") if self._copy_to else place
        os.makedirs(self._folder, exist_ok=True)
        self._open(start_step)
        if start_step > 0:
            restart = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=start_step + 1, session_log=restart))
            self._has_news = True

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Add the numbers among `figures` under their names; what is no finite number has no point on a curve."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ]
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._newest_step, self._has_news = step, True
        if self._copy_to is None and time.monotonic() - self._last_flush > _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Let TensorBoard see all that was written."""
        if self._copy_to is None:
            self._writer.flush()
            self._last_flush = time.monotonic()
        else:
            self._copy(self._copy_to)
            self._open(self._newest_step)

    def close(self) -> None:
        """Let TensorBoard see all that was written, and let go of the file."""
        if self._copy_to is None:
            self._writer.close()
        else:
            self._copy(self._copy_to)
            shutil.rmtree(self._folder)

    def _open(self, step: int) -> None:
        # A file's name has whole seconds only, which two files may share; they are read in the order of their names.
        self._writer = EventsWriter(os.path.join(self._folder, "events"), f".{time.time_ns()}")
        self._newest_step, self._last_flush, self._has_news = step, time.monotonic(), False

    def _copy(self, folder: str) -> None:
        self._writer.close()
        (name,) = os.listdir(self._folder)
        path = os.path.join(self._folder, name)
        if self._has_news:
            storage.write_bytes_atomically(storage.join(folder, name), storage.read_bytes(path))
        os.unlink(path)
