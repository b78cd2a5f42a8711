"""Another run as a new one's start: where its weights and its tokenizer lie, and what shape they have."""

import json
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.checkpoint import CheckpointStore

logger = logging.getLogger(__name__)

Shapes = dict[str, tuple[int, ...]]

_WEIGHTS, _TOKENIZER = "model.safetensors", "tokenizer.json"
_MOST_HEADER_BYTES = 100_000_000
"""the format's own limit"""


class EarlierWeights(NamedTuple):
    """Weights in memory."""

    weights: dict[str, Tensor]
    step: int | None
    """None: of the model folder"""


@dataclass(frozen=True)
class EarlierRun:
    """The run, or the search with its winner's model, in the folder `path`; a folder with a model alone does too."""

    path: str

    def weights(self) -> EarlierWeights:
        """Those of the newest good checkpoint, else of the model folder. Raises ValueError where there are none."""
        checkpoint = self._checkpoints.latest().checkpoint
        if checkpoint is not None:
            return EarlierWeights(checkpoint.weights, checkpoint.step)
        path = storage.join(self._model_folder(), _WEIGHTS)
        try:
            return EarlierWeights(safetensors.torch.load(storage.read_bytes(path)), None)
        except safetensors.SafetensorError as error:
            raise ValueError(f"--init-from {self.path}: {path} is damaged ({error}); restore it from a copy") from error

    def shapes(self) -> Shapes:
        """The shape of each weight, from the head of the file that `weights` would read first."""
        for step in reversed(self._checkpoints.steps()):
            try:
                return _read_shapes(self._checkpoints.weights_file(step))
            except ValueError as error:
                logger.warning("checkpoint of step %d passed over: %s", step, error)
        return _read_shapes(storage.join(self._model_folder(), _WEIGHTS))

    def tokenizer_folder(self) -> str:
        """Where the tokenizer that its texts were split with lies: beside the model, or in its prepared set.

        Raises:
            ValueError: in neither place, as where the run is unfinished and its set was removed.
        """
        for folder in (storage.join(self.path, "model"), self.path, self._set_folder()):
            if folder is not None and storage.exists(storage.join(folder, _TOKENIZER)):
                return folder
        raise ValueError(
            f"--init-from {self.path}: its tokenizer is not to be found, neither in its model folder nor in the "
            "prepared set that it learned from; finish that run, or restore its set"
        )

    @property
    def _checkpoints(self) -> CheckpointStore:
        return CheckpointStore(storage.join(self.path, "checkpoints"))

    def _model_folder(self) -> str:
        for folder in (storage.join(self.path, "model"), self.path):
            if storage.exists(storage.join(folder, _WEIGHTS)):
                return folder
        raise ValueError(
            f"--init-from {self.path}: holds neither a good checkpoint nor a model folder; name the folder of a run "
            "that has written one"
        )

    def _set_folder(self) -> str | None:
        path = storage.join(self.path, "environment.json")
        if not storage.exists(path):
            return None
        prepared = json.loads(storage.read_bytes(path)).get("prepared")
        return None if prepared is None else storage.join(prepared, "tokenizer")


def _read_shapes(path: str) -> Shapes:
    """Shapes from the head of a safetensors file: eight bytes with its length, then JSON."""
    num_bytes = int.from_bytes(storage.read_range(path, 0, 8), "little")
    try:
        if num_bytes > _MOST_HEADER_BYTES:
            raise ValueError(f"a head of {num_bytes} bytes")
        head: dict[str, Any] = json.loads(storage.read_range(path, 8, num_bytes))
        return {name: tuple(entry["shape"]) for name, entry in head.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of weights ({error}); expected safetensors") from error
