"""Checkpoints that exist only once a manifest, written last, names them with their sha256 (contract C7).

Layout: `checkpoints/manifest.json` and `checkpoints/step-<NNNNNNNN>/{model.safetensors,trainer.pt}`, on local disk
or S3.
"""

import io
import json
import logging
import pickle
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from mlim_ray.data import storage

logger = logging.getLogger(__name__)

_MODEL_FILE, _TRAINER_FILE, _MANIFEST = "model.safetensors", "trainer.pt", "manifest.json"


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    step: int
    weights: dict[str, Tensor]
    trainer_state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run, in `folder`."""

    def __init__(self, folder: str, num_kept: int = 2) -> None:
        self.folder = folder
        self.num_kept = num_kept

    def save(self, step: int, weights: dict[str, Tensor], trainer_state: dict[str, Any]) -> None:
        """Write a checkpoint and forget those beyond `num_kept`; a crash anywhere leaves the older ones intact."""
        buffer = io.BytesIO()
        torch.save(trainer_state, buffer)
        contents = {
            _MODEL_FILE: safetensors.torch.save({k: v.contiguous().cpu() for k, v in weights.items()}),
            _TRAINER_FILE: buffer.getvalue(),
        }
        files = {}
        for name, data in contents.items():
            storage.write_bytes_atomically(storage.join(self._step_folder(step), name), data)
            files[name] = {"num_bytes": len(data), "sha256": storage.sha256_of(data)}
        older = [entry for entry in self._entries() if entry["step"] < step]
        kept = [*older[max(0, len(older) - self.num_kept + 1) :], {"step": step, "files": files}]
        self._write_manifest(kept)
        self._sweep({_step_name(entry["step"]) for entry in kept})

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose bytes are those that were written; None without any.

        A damaged one is named in the log and the one before it is taken.
        """
        for entry in reversed(self._entries()):
            try:
                return self._load(entry)
            except ValueError as error:
                logger.warning("checkpoint of step %d refused: %s; taking the one before", entry["step"], error)
        return None

    def steps(self) -> list[int]:
        """Steps of the checkpoints that exist, oldest first."""
        return [entry["step"] for entry in self._entries()]

    def weights_file(self, step: int) -> str:
        """The safetensors file with the weights of a checkpoint."""
        return storage.join(self._step_folder(step), _MODEL_FILE)

    def _load(self, entry: dict[str, Any]) -> Checkpoint:
        data = {}
        for name, expected in entry["files"].items():
            path = storage.join(self._step_folder(entry["step"]), name)
            data[name] = storage.read_bytes(path)
            if storage.sha256_of(data[name]) != expected.get("sha256"):
                raise ValueError(f"{path} has not the sha256 that was written")
        try:
            state = torch.load(io.BytesIO(data[_TRAINER_FILE]), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{entry['step']}: {_TRAINER_FILE} holds more than numbers and was not opened") from error
        return Checkpoint(entry["step"], safetensors.torch.load(data[_MODEL_FILE]), state)

    def _entries(self) -> list[dict[str, Any]]:
        path = storage.join(self.folder, _MANIFEST)
        if not storage.exists(path):
            return []
        try:
            entries: list[dict[str, Any]] = json.loads(storage.read_bytes(path))["checkpoints"]
            return [
                {"step": entry["step"], "files": {n: entry["files"][n] for n in (_MODEL_FILE, _TRAINER_FILE)}}
                for entry in entries
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error!r}), expected the list of checkpoints; "
                "restore it from a copy, or start anew with --overwrite"
            ) from error

    def _write_manifest(self, entries: list[dict[str, Any]]) -> None:
        data = json.dumps({"checkpoints": entries}, indent=1).encode()
        storage.write_bytes_atomically(storage.join(self.folder, _MANIFEST), data)

    def _sweep(self, kept_names: set[str]) -> None:
        """Remove what the manifest does not name, leftovers of a crash included."""
        for name in storage.list_names(self.folder):
            if name.startswith("step-") and name not in kept_names:
                storage.remove_tree(storage.join(self.folder, name))

    def _step_folder(self, step: int) -> str:
        return storage.join(self.folder, _step_name(step))


def _step_name(step: int) -> str:
    return f"step-{step:08d}"
