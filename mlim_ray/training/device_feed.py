"""A worker's batches with their tensors on the device; on a GPU, the next one is on its way while it computes."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Batch
from mlim_ray.training.clock import Clock
from mlim_ray.training.parts import blank_record, split_batch
from mlim_ray.training.tensors import to_tensors


class Part(NamedTuple):
    """What goes through the model at once."""

    inputs: BatchTensors
    num_records: int
    """0 where `inputs` are a blank record, for a worker that has none in this step"""


class Step(NamedTuple):
    """A worker's share of one global batch."""

    batch: Batch
    parts: list[Part]


class DeviceFeed:
    """The next batches of a worker, at most `num_steps` of them, so that none is taken that is not trained on.

    A CPU gets each batch when it asks for it. For a GPU the loop calls `prefetch` once it has launched a step: the feed
    is waited for and the copies are made beside the step's work, on a stream of their own.

    Args:
        batches: this worker's.
        num_steps: how many will be asked for.
        device: where they are to be.
        most_records: of a part (`split_batch`).
        clock: told what was spent on waiting for `batches`.
    """

    def __init__(
        self, batches: Iterator[Batch], num_steps: int, device: torch.device, most_records: int | None, clock: Clock
    ) -> None:
        self._batches = batches
        self._num_left = num_steps
        self._device = device
        self._most_records = most_records
        self._clock = clock
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: Step | None = None

    def take(self) -> Step | None:
        """The next step; None where the batches have ended early."""
        step = self._next if self._next is not None else self._load()
        self._next = None
        if step is not None and self._stream is not None:
            _hand_over(step, self._stream)
        return step

    def prefetch(self) -> None:
        """Begin to load the next step, if there is one and the device is a GPU."""
        if self._stream is not None and self._next is None:
            self._next = self._load()

    def _load(self) -> Step | None:
        if self._num_left <= 0:
            return None
        with self._clock.spending("data_wait"):
            batch = next(self._batches, None)
        if batch is None:
            return None
        self._num_left -= 1
        # None, the stream of a CPU, changes nothing.
        with torch.cuda.stream(self._stream):
            parts = [
                Part(to_tensors(part if len(part.mode_B) else blank_record(part), self._device), len(part.mode_B))
                for part in split_batch(batch, self._most_records)
            ]
        return Step(batch, parts)


def _hand_over(step: Step, stream: torch.cuda.Stream) -> None:
    """What was copied on `stream` may be used on the current one, and its memory taken back only after that."""
    current = torch.cuda.current_stream(stream.device)
    current.wait_stream(stream)
    for part in step.parts:
        for tensor in part.inputs.tensors():
            tensor.record_stream(current)
