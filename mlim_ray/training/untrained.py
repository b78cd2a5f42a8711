"""The model that a run started from: the baseline that shows what its training adds."""

import json
from typing import Any

import torch
import yaml

from mlim_ray.data import storage
from mlim_ray.model import MlimConfig, MlimModel, load_bert_weights


def untrained_twin(run: str, shape: MlimConfig) -> MlimModel:
    """A model of `shape` at the seeded start of the run in the folder `run`, as `build_model` makes it, ready to be
    asked; at the start of seed 0 where the folder holds a model alone."""
    config = _config(run)
    torch.manual_seed(int(config.get("train", {}).get("seed", 0)))
    model = MlimModel(shape)
    bert = config.get("model", {}).get("bert_checkpoint")
    if bert is not None:
        load_bert_weights(model, bert)
    return model.requires_grad_(False).eval()


def learned_from(run: str) -> str | None:
    """The path of the prepared set that the run in the folder `run` learned from; None where it does not tell."""
    path = storage.join(run, "environment.json")
    prepared = json.loads(storage.read_bytes(path)).get("prepared") if storage.exists(path) else None
    return None if prepared is None else str(prepared)


def _config(run: str) -> dict[str, Any]:
    path = storage.join(run, "config.yaml")
    return yaml.safe_load(storage.read_bytes(path)) or {} if storage.exists(path) else {}
