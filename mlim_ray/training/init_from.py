"""Start a run, or all trials of a search, from the weights of an earlier run: `--init-from`.

The weights are copied once, before any worker starts: into a run as its checkpoint of step 0, into a search as the
start of each trial. So all workers and trials begin with the same ones whatever the earlier run does meanwhile, a run
that is resumed never asks for it again, and it may be removed. Schedule, optimiser, order and masks are new.
"""

import hashlib
from typing import TypeVar

import torch
from torch import Tensor

from mlim_ray.config import ModelConfig, ModelSize, PretrainConfig
from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.tokenizer import TextTokenizer, load_tokenizer
from mlim_ray.model import SIZES, MlimConfig, MlimModel
from mlim_ray.training.build import build_model, build_trainer
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.earlier_run import EarlierRun, Shapes
from mlim_ray.training.run_folder import RunFolder

Config = TypeVar("Config", bound=PretrainConfig)

_START = "start.json"


def has_begun(folder: RunFolder) -> bool:
    """Whether the run or search in `folder` has weights of its own already and asks the earlier run for nothing."""
    return bool(folder.checkpoints().steps() or _start_of_trials(folder).steps())


def fit_start(earlier: EarlierRun, config: Config, prepared: PreparedSet | None) -> Config:
    """The config with the earlier run's tokenizer, where a source is still to be prepared and no other is given.

    Of the weights only the head of their file is read.

    Args:
        earlier: where the weights come from.
        config: its size is resolved.
        prepared: what is learned from; None: a source that is to be prepared as `config` says.

    Raises:
        ValueError: the weights do not fit the size, the vocabulary or the length of texts, with the mend.
    """
    shapes = earlier.shapes()
    _check_size(earlier, shapes, config)
    folder = earlier.tokenizer_folder()
    if prepared is None and config.prepare.tokenizer is None:
        config = config.model_copy(update={"prepare": config.prepare.model_copy(update={"tokenizer": folder})})
    _check_vocabulary(earlier, folder, config, prepared)
    num_tokens = shapes["token_positions"][0]
    if prepared is None and config.prepare.max_tokens != num_tokens:
        raise ValueError(
            f"--init-from {earlier.path}: its model takes texts of {num_tokens} pieces and --prepare.max-tokens is "
            f"{config.prepare.max_tokens}; use --prepare.max-tokens {num_tokens}"
        )
    if prepared is not None and prepared.manifest.text.max_tokens != num_tokens:
        raise ValueError(
            f"--init-from {earlier.path}: its model takes texts of {num_tokens} pieces and {prepared.path} holds texts "
            f"of up to {prepared.manifest.text.max_tokens}; prepare the source again with mlim-ray prepare "
            f"--max-tokens {num_tokens} --tokenizer {folder}"
        )
    return config


def start_run(folder: RunFolder, config: PretrainConfig, prepared: PreparedSet) -> str:
    """Write the checkpoint of step 0 of the run in `folder`; gives a line that says where its weights come from."""
    # It only holds what a checkpoint holds: there is nothing to compile for.
    train = config.train.model_copy(update={"compile": False})
    trainer = build_trainer(config.model_copy(update={"train": train}), prepared)
    line = _load_earlier(trainer.model, folder, config)
    folder.checkpoints().save(0, trainer.model.state_dict(), trainer.state())
    return line


def start_trials(folder: RunFolder, config: PretrainConfig, prepared: PreparedSet) -> str:
    """Write what all trials of the search in `folder` start from; gives a line as `start_run` does."""
    model = build_model(config, prepared)
    line = _load_earlier(model, folder, config)
    _start_of_trials(folder).save(0, model.state_dict(), {})
    return line


def load_start_of_trials(model: MlimModel, folder: RunFolder) -> None:
    """Load what `start_trials` wrote. Raises ValueError where it is damaged."""
    start = _start_of_trials(folder).latest().checkpoint
    if start is None:
        raise ValueError(lost_start(folder.path))
    model.load_state_dict(start.weights)


def lost_start(path: str) -> str:
    """What to say of a run whose first weights are gone: it must not go on from random ones."""
    return (
        f"{path} has lost the weights that it was to start from: their checkpoint is damaged; start it anew with "
        "--overwrite"
    )


def _start_of_trials(folder: RunFolder) -> CheckpointStore:
    return CheckpointStore(folder.file("start"))


def _load_earlier(model: MlimModel, folder: RunFolder, config: PretrainConfig) -> str:
    """Load the earlier run's weights, and leave in `start.json` which they were."""
    assert config.model.init_from is not None, "asked for"
    found = EarlierRun(config.model.init_from).weights()
    model.load_state_dict(found.weights)
    folder.write_json(
        _START, {"run": config.model.init_from, "step": found.step, "sha256": weights_sha256(found.weights)}
    )
    place = "model folder" if found.step is None else f"checkpoint of step {found.step:,}"
    return f"start: the weights of {config.model.init_from}, {place}"


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and values: the same in whatever file they lie."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_size(earlier: EarlierRun, shapes: Shapes, config: PretrainConfig) -> None:
    size = config.model.size
    assert size != "auto", "sizes are resolved before a start is checked"
    expected = _shapes_of(config.model, shapes)
    if shapes == expected:
        return
    held = next((name for name in SIZES if shapes == _shapes_of(ModelConfig(size=name), shapes)), None)
    if held is not None and held != size:
        raise ValueError(
            f"--init-from {earlier.path}: its model is of size {held} ({_described(held)}) and --model.size is {size} "
            f"({_described(size)}); use --model.size {held}, or start from another run"
        )
    differing = next(name for name in {**expected, **shapes} if expected.get(name) != shapes.get(name))
    if held is not None:
        raise ValueError(
            f"--init-from {earlier.path}: its model is of size {held} with MLIM's own parts, and the parts asked for "
            f"differ: {differing} has shape {shapes.get(differing, 'none')}, expected "
            f"{expected.get(differing, 'none')}; leave out --model.embedder.*, --model.encoder.* and "
            "--model.cell-size, or start from another run"
        )
    raise ValueError(
        f"--init-from {earlier.path}: its model is of none of the sizes {', '.join(SIZES)}: {differing} has shape "
        f"{shapes.get(differing, 'none')}, and in --model.size {size} ({_described(size)}) "
        f"{expected.get(differing, 'none')}; start from another run"
    )


def _check_vocabulary(earlier: EarlierRun, folder: str, config: PretrainConfig, prepared: PreparedSet | None) -> None:
    before = load_tokenizer(folder)
    if prepared is not None:
        now, where = prepared.tokenizer(), prepared.path
        mend = f"prepare the source again with mlim-ray prepare --tokenizer {folder}"
    else:
        assert config.prepare.tokenizer is not None, "the earlier run's, if no other"
        now, where = load_tokenizer(storage.absolute(config.prepare.tokenizer)), config.prepare.tokenizer
        mend = "leave --prepare.tokenizer out"
    if _vocabulary(before) != _vocabulary(now):
        raise ValueError(
            f"--init-from {earlier.path}: its vocabulary ({before.vocab_size:,} pieces, {folder}) is not that of "
            f"{where} ({now.vocab_size:,} pieces), so its word embeddings would stand for other words; {mend}"
        )


def _vocabulary(tokenizer: TextTokenizer) -> dict[str, int]:
    return dict(tokenizer.tokenizer.get_vocab())


def _shapes_of(model: ModelConfig, like: Shapes) -> Shapes:
    """The shapes of a model with the vocabulary and the text length of `like`."""
    no_shape = (0, 0)
    with torch.device("meta"):
        shape = MlimConfig.of(
            model,
            vocab_size=like.get("word_embeddings.weight", no_shape)[0],
            mask_token_id=0,
            pad_token_id=0,
            max_tokens=like.get("token_positions", no_shape)[0],
        )
        return {name: tuple(weight.shape) for name, weight in MlimModel(shape).state_dict().items()}


def _described(size: ModelSize) -> str:
    shape = SIZES[size]
    return f"{shape.image_size} px, width {shape.embedder_channels[-1]}, {shape.num_layers} layers"
