"""The model of a run as it is used: weights, tokenizer, and how its records were cleaned."""

import json
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from mlim_ray.config.base import AUTO
from mlim_ray.config.model import ModelConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import MANIFEST_FILE, read_manifest
from mlim_ray.data.tokenizer import TextTokenizer, load_tokenizer
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.training.earlier_run import EarlierRun, Shapes
from mlim_ray.training.init_from import weights_sha256

_MODEL_CONFIG = "config.json"


@dataclass(frozen=True)
class LoadedRun:
    """What others need of a run to use its model."""

    model: MlimModel
    """on the CPU, ready to be asked"""
    tokenizer: TextTokenizer
    step: int | None
    """of its newest checkpoint; None: from the model folder"""
    sha256: str
    """of the weights: their names, types, shapes and values"""
    prepare: PrepareConfig
    """how records have to be cleaned to be as those that the model learned from; names no columns"""


def load_run(path: str) -> LoadedRun:
    """The model of the run in the folder `path`, local or in S3; a folder with a model alone does too.

    Weights are those of the newest good checkpoint, else of the model folder.

    Raises:
        ValueError: `path` holds no weights or no tokenizer, or not the shape of the model.
    """
    path = storage.absolute(path)
    if not storage.is_folder(path):
        raise storage.MissingPathError(f"RUN: {path} is no folder; name that of a run, or of a model")
    run = EarlierRun(path)
    try:
        (weights, step), folder = run.weights(), run.tokenizer_folder()
    except ValueError as error:
        raise ValueError(str(error).replace("--init-from ", "RUN: ")) from error
    tokenizer = load_tokenizer(folder)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    with torch.device("meta"):
        model = MlimModel(_shape(path, shapes, tokenizer))
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if expected != shapes:
        differing = next(name for name in {**expected, **shapes} if expected.get(name) != shapes.get(name))
        raise ValueError(
            f"RUN: the weights of {path} do not fit its config: {differing} has shape {shapes.get(differing, 'none')}, "
            f"expected {expected.get(differing, 'none')}; restore the run from a copy"
        )
    model.load_state_dict(weights, assign=True)
    model.requires_grad_(False)
    return LoadedRun(model.eval(), tokenizer, step, weights_sha256(weights), prepare_config_of(path, model.config))


def _shape(path: str, shapes: Shapes, tokenizer: TextTokenizer) -> MlimConfig:
    """From the model folder, or, of a run that is not finished, from the parts in its config."""
    for folder in (storage.join(path, "model"), path):
        file = storage.join(folder, _MODEL_CONFIG)
        if storage.exists(file):
            shape: MlimConfig = MlimConfig.from_dict(json.loads(storage.read_bytes(file)))
            return shape
    return MlimConfig.of(
        ModelConfig.model_validate_json(json.dumps(_run_config(path)["model"])),
        vocab_size=tokenizer.vocab_size,
        mask_token_id=tokenizer.mask_id,
        pad_token_id=tokenizer.pad_id,
        max_tokens=shapes["token_positions"][0],
    )


def prepare_config_of(path: str, shape: MlimConfig) -> PrepareConfig:
    """How records have to be cleaned to be as those that the run in the folder `path` learned from, as far as it is
    known; else the defaults. It names no columns."""
    path = storage.absolute(path)
    config = PrepareConfig()
    file = storage.join(path, "environment.json")
    prepared = json.loads(storage.read_bytes(file)).get("prepared") if storage.exists(file) else None
    if prepared is not None and storage.exists(storage.join(prepared, MANIFEST_FILE)):
        config = read_manifest(prepared).config
    elif storage.exists(storage.join(path, "config.yaml")):
        config = PrepareConfig.model_validate_json(json.dumps(_run_config(path)["prepare"]))
    of_source = {name: None for name in PrepareConfig.model_fields if name.endswith("_column")}
    return config.model_copy(
        update={
            **of_source,
            **{"format": AUTO, "text": None, "image_folder": None, "tokenizer": None, "attribute_columns": ()},
            **{"image_size": shape.image_size, "max_tokens": shape.max_tokens},
        }
    )


def _run_config(path: str) -> dict[str, Any]:
    file = storage.join(path, "config.yaml")
    if not storage.exists(file):
        raise ValueError(f"RUN: {path} has neither a config.json of its model nor a config.yaml; name a run's folder")
    config: dict[str, Any] = yaml.safe_load(storage.read_bytes(file))
    return config
