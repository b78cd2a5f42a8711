"""Writes checkpoints in the background, so that training waits only while its tensors are copied."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from mlim_ray.training.checkpoint import CheckpointStore

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves to a `CheckpointStore` in a thread of its own, one checkpoint at a time.

    It holds one copy of all tensors in CPU memory (pinned where they come from a GPU), used again for each checkpoint.
    As a context manager it ends with what is in flight.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.wait_s = 0.0
        """seconds that callers were held so far: by a write still in flight, and while tensors were copied"""
        self._store = store
        self._snapshot = _Snapshot()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_flight: Future[None] | None = None

    def submit(
        self, step: int, weights: Mapping[str, Tensor], trainer_state: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Save a checkpoint as everything is now; what is changed after this returns does not change it.

        Waits for a write that is still in flight.

        Raises:
            Exception: what the write before failed with, such as a StorageError; nothing is submitted then.
        """
        start = time.perf_counter()
        try:
            self._wait()
            taken = self._snapshot.take({"weights": weights, "trainer_state": trainer_state})
        finally:
            self.wait_s += time.perf_counter() - start
        self._in_flight = self._pool.submit(self._store.save, step, taken["weights"], taken["trainer_state"], score)

    def close(self) -> None:
        """Wait for what is in flight. Raises what its write failed with, if nobody was told of it yet."""
        start = time.perf_counter()
        try:
            self._wait()
        finally:
            self.wait_s += time.perf_counter() - start
            self._pool.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as failed:
            # The error that led here is the one to be raised.
            logger.error("the last checkpoint was not written: %s", failed)
            error.add_note(f"besides, the last checkpoint was not written: {failed}")

    def _wait(self) -> None:
        if self._in_flight is None:
            return
        try:
            self._in_flight.result()
        finally:
            # Not so where the waiting itself was interrupted.
            if self._in_flight.done():
                self._in_flight = None


class _Snapshot:
    """Copies of nested containers whose tensors go into CPU memory that is used again."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._devices: set[torch.device] = set()

    def take(self, value: Any) -> Any:
        """A copy of `value`; the one before is overwritten."""
        kept, self._buffers = self._buffers, {}
        taken = self._copied(value, (), kept)
        for device in self._devices:
            # Copies into pinned memory are only queued so far.
            torch.cuda.synchronize(device)
        return taken

    def _copied(self, value: Any, place: tuple[Any, ...], kept: dict[tuple[Any, ...], Tensor]) -> Any:
        if isinstance(value, Tensor):
            return self._copied_tensor(value.detach(), place, kept)
        if isinstance(value, Mapping):
            return {key: self._copied(item, (*place, key), kept) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._copied(item, (*place, index), kept) for index, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return copy.deepcopy(value)

    def _copied_tensor(self, tensor: Tensor, place: tuple[Any, ...], kept: dict[tuple[Any, ...], Tensor]) -> Tensor:
        buffer = kept.get(place)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._buffers[place] = buffer
        if tensor.is_cuda:
            self._devices.add(tensor.device)
        return buffer.copy_(tensor, non_blocking=tensor.is_cuda)
