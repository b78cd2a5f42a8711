"""Checkpoints that exist only once a manifest, written last, names them with their sha256 (contract C7).

Layout: `checkpoints/manifest.json`, its copy `manifest.copy.json`, and for each checkpoint
`checkpoints/step-<NNNNNNNN>/{model.safetensors,trainer.pt}`, on local disk or S3.
"""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.checkpoint_janitor import remove_leftovers
from mlim_ray.training.checkpoint_manifest import (
    MODEL_FILE,
    TRAINER_FILE,
    CheckpointEntry,
    CheckpointFile,
    FileName,
    mend_manifest,
    read_manifest,
    step_name,
    write_manifest,
)
from mlim_ray.training.checkpoint_policy import CheckpointPolicy

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    step: int
    weights: dict[str, Tensor]
    trainer_state: dict[str, Any]


class Refused(NamedTuple):
    """A checkpoint, or a manifest, that is not what was written."""

    step: int | None
    """None: it is the manifest"""
    reason: str

    def __str__(self) -> str:
        if self.step is None:
            return f"manifest of the checkpoints refused, its copy taken: {self.reason}"
        return f"checkpoint of step {self.step} refused: {self.reason}"


class Found(NamedTuple):
    """The newest good checkpoint, None without any, and what had to be refused on the way to it."""

    checkpoint: Checkpoint | None
    refused: list[Refused]


class CheckpointStore:
    """The checkpoints of one run, in `folder`; one process at a time may write there (see `Lease`)."""

    def __init__(self, folder: str, policy: CheckpointPolicy | None = None) -> None:
        self.folder = folder
        self.policy = policy or CheckpointPolicy()
        self._refused_steps: set[int] = set()

    def save(
        self, step: int, weights: dict[str, Tensor], trainer_state: dict[str, Any], score: float | None = None
    ) -> None:
        """Write a checkpoint and forget those that the policy does not keep.

        A crash anywhere leaves the older ones intact. Those of `step` and later steps, and those that `latest`
        refused, are forgotten: the run went back before them.

        Args:
            step: its position.
            weights: of the model.
            trainer_state: the rest; loads with `weights_only=True`.
            score: what the best is chosen by, from `CheckpointPolicy.score_of`.

        Raises:
            StorageError: it cannot be written; the message names the file and the mend.
        """
        entries = self.entries()
        older = [entry for entry in entries if entry.step < step and entry.step not in self._refused_steps]
        try:
            if not entries:
                mend_manifest(self.folder)
            files = {
                MODEL_FILE: self._write(step, MODEL_FILE, _model_bytes(weights)),
                TRAINER_FILE: self._write(step, TRAINER_FILE, _trainer_bytes(trainer_state)),
            }
            new = CheckpointEntry(step=step, score=score, files=files)
            kept = self.policy.choose([*older, new])
            write_manifest(self.folder, kept)
        except Exception:
            self._make_room({entry.step for entry in older})
            raise
        self._refused_steps.clear()
        remove_leftovers(self.folder, {entry.step for entry in kept})

    def latest(self) -> Found:
        """The newest checkpoint whose bytes are those that were written, and what was refused: damaged ones, missing
        ones, and such as hold more than numbers. Each is named in the log as well.

        Raises:
            StorageError: a file cannot be read now, though it may be good.
            ValueError: neither the manifest nor its copy is whole.
        """
        checkpoint, refused = self._newest(self._load)
        self._refused_steps = {entry.step for entry in refused if entry.step is not None}
        return Found(checkpoint, refused)

    def check(self) -> list[Refused]:
        """What `latest` would refuse for its bytes, without holding a checkpoint in memory; raises as it does."""
        return self._newest(self._compare)[1]

    def steps(self) -> list[int]:
        """Steps of the checkpoints that exist, oldest first."""
        return [entry.step for entry in self.entries()]

    def weights(self, step: int) -> dict[str, Tensor]:
        """The weights of the checkpoint of this step.

        Raises:
            ValueError: there is none, or its bytes are not those that were written.
        """
        entry = next((entry for entry in self.entries() if entry.step == step), None)
        if entry is None:
            raise ValueError(f"{self.folder}: there is no checkpoint of step {step}, expected one of {self.steps()}")
        return _opened(self._read(entry, MODEL_FILE), self._path(step, MODEL_FILE), safetensors.torch.load)

    def weights_file(self, step: int) -> str:
        """The safetensors file with the weights of a checkpoint."""
        return self._path(step, MODEL_FILE)

    def entries(self) -> tuple[CheckpointEntry, ...]:
        """What the manifest says of the checkpoints that exist, oldest first; raises as `latest` does."""
        listing = read_manifest(self.folder)
        if listing.refused is not None:
            logger.warning("%s", Refused(None, listing.refused))
        return listing.entries

    def clean(self) -> int:
        """Remove what crashes left, and mend a damaged manifest from its copy; gives the number of files removed.

        Called when a run starts and owns the folder; `save` removes what is left as well. Neither touches a
        checkpoint of the manifest, or a file that is not ours.
        """
        mend_manifest(self.folder)
        num_removed = remove_leftovers(self.folder, set(self.steps()))
        if num_removed:
            logger.info("%s: %d files of checkpoints that were never finished removed", self.folder, num_removed)
        return num_removed

    def _newest(self, read: Callable[[CheckpointEntry], Result]) -> tuple[Result | None, list[Refused]]:
        """What `read` gives of the newest entry that it does not raise ValueError for."""
        listing = read_manifest(self.folder)
        refused = [] if listing.refused is None else [Refused(None, listing.refused)]
        result = None
        for entry in reversed(listing.entries):
            try:
                result = read(entry)
                break
            except ValueError as error:
                if not _is_damage(error):
                    raise
                refused.append(Refused(entry.step, str(error)))
        for found in refused:
            logger.warning("%s", found)
        return result, refused

    def _load(self, entry: CheckpointEntry) -> Checkpoint:
        return Checkpoint(
            entry.step,
            _opened(self._read(entry, MODEL_FILE), self._path(entry.step, MODEL_FILE), safetensors.torch.load),
            _opened(self._read(entry, TRAINER_FILE), self._path(entry.step, TRAINER_FILE), _trainer_state),
        )

    def _compare(self, entry: CheckpointEntry) -> None:
        for name, expected in entry.files.items():
            path = self._path(entry.step, name)
            if storage.sha256(path) != expected.sha256:
                raise ValueError(_damaged(path))

    def _read(self, entry: CheckpointEntry, name: FileName) -> bytes:
        path, expected = self._path(entry.step, name), entry.files[name]
        data = storage.read_bytes(path, expected.num_bytes + 1)
        if len(data) != expected.num_bytes or storage.sha256_of(data) != expected.sha256:
            raise ValueError(_damaged(path))
        return data

    def _write(self, step: int, name: FileName, data: bytes | memoryview) -> CheckpointFile:
        storage.write_bytes_atomically(self._path(step, name), data)
        return CheckpointFile(num_bytes=len(data), sha256=storage.sha256_of(data))

    def _make_room(self, older_steps: set[int]) -> None:
        """Remove what was written of a checkpoint that failed: the disk may be full. In S3 it stays for the next start,
        for what failed there may go on failing for the whole retry budget."""
        if storage.is_remote(self.folder):
            return
        try:
            remove_leftovers(self.folder, older_steps | set(self.steps()))
        except ValueError as error:
            # The error that led here is the one to be raised.
            logger.warning("what was written of a checkpoint is left: %s", error)

    def _path(self, step: int, name: FileName) -> str:
        return storage.join(self.folder, step_name(step), name)


def _model_bytes(weights: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in weights.items()})


def _trainer_bytes(trainer_state: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(trainer_state, buffer)
    return buffer.getbuffer()


def _trainer_state(data: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def _opened(data: bytes, path: str, parse: Callable[[bytes], Result]) -> Result:
    try:
        return parse(data)
    except Exception as error:
        # Somebody wrote other bytes and named them in the manifest; torch and safetensors raise what they like.
        raise ValueError(
            f"{path} is no file of a checkpoint, or holds more than numbers: not opened ({type(error).__name__})"
        ) from error


def _damaged(path: str) -> str:
    return f"{path} has not the sha256 that was written"


def _is_damage(error: ValueError) -> bool:
    """Whether a file is bad for good; what cannot be read for another reason may be good."""
    if not isinstance(error, storage.StorageError):
        return True
    cause = error.__cause__
    return isinstance(error, storage.MissingPathError) or (isinstance(cause, OSError) and cause.errno == errno.EIO)
