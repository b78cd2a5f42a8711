"""Opening the model of a run."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from mlim_ray.data import storage
from mlim_ray.data.preprocessing import Preprocessor, read_image_settings
from mlim_ray.data.tokenizer import load_tokenizer
from mlim_ray.inference.loaded_model import LoadedModel
from mlim_ray.model import MlimConfig, MlimModel

_WEIGHTS, _CONFIG, _PROCESSOR = "model.safetensors", "config.json", "processor_config.json"
_FILES = (_WEIGHTS, _CONFIG, _PROCESSOR, "tokenizer.json")


def load(path: str | Path, *, device: str | torch.device | None = None) -> LoadedModel:
    """The model of a run or of a search, ready to be used.

    Args:
        path: the folder of a run, or its `model/` alone; local or s3://.
        device: where it computes; by default a GPU if there is one.

    Raises:
        ValueError: there is no model at `path`, or a file of it is missing or damaged.
    """
    folder = _model_folder(storage.absolute(str(path)))
    try:
        model = MlimModel(MlimConfig.from_dict(_read_json(folder, _CONFIG)))
        weights = safetensors.torch.load(storage.read_bytes(storage.join(folder, _WEIGHTS)))
        settings = _read_json(folder, _PROCESSOR)
        rules, encoding = read_image_settings(settings["image_processor"])
        lengths = settings["max_tokens"], settings["max_text_characters"]
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is damaged ({error}); restore it from a copy") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        # Its words name every weight of the model.
        raise ValueError(
            f"{folder} is damaged ({_WEIGHTS} is of another shape than {_CONFIG} says); restore it from a copy"
        ) from error
    preprocessor = Preprocessor(rules, encoding, load_tokenizer(folder), *lengths)
    return LoadedModel(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), preprocessor)


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = storage.join(folder, name)
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy") from error
    return content


def _model_folder(path: str) -> str:
    for folder in (storage.join(path, "model"), path):
        if storage.exists(storage.join(folder, _WEIGHTS)):
            missing = [name for name in _FILES if not storage.exists(storage.join(folder, name))]
            if missing:
                raise ValueError(
                    f"{folder} lacks {', '.join(missing)}; restore it from a copy, or have the run write it again: "
                    "remove the run's evaluation.json and give its command again with --resume"
                )
            return folder
    raise ValueError(f"{path} holds no model; expected the folder of a finished run, or its folder model/")
