"""The model and trainer of a run, from its config and its prepared set."""

import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.model import MlimConfig, MlimModel, load_bert_weights
from mlim_ray.training.batch import Masking
from mlim_ray.training.resolution import stages_of
from mlim_ray.training.stream import stream_order
from mlim_ray.training.trainer import Trainer


def model_config(config: PretrainConfig, prepared: PreparedSet) -> MlimConfig:
    """Shape of the model that a resolved config asks for, with the prepared set's vocabulary.

    Raises:
        ValueError: the set's pictures have not the size that the model takes.
    """
    tokenizer = prepared.tokenizer()
    shape = MlimConfig.of(
        config.model,
        vocab_size=tokenizer.vocab_size,
        mask_token_id=tokenizer.mask_id,
        pad_token_id=tokenizer.pad_id,
        max_tokens=prepared.manifest.text.max_tokens,
    )
    if prepared.manifest.image.size != shape.image_size:
        raise ValueError(
            f"{prepared.path} holds pictures of {prepared.manifest.image.size} pixels and --model.size "
            f"{config.model.size} takes {shape.image_size}; prepare the source again with "
            f"mlim-ray prepare --image-size {shape.image_size}, or choose the size that fits"
        )
    return shape


def build_model(config: PretrainConfig, prepared: PreparedSet, device: torch.device | None = None) -> MlimModel:
    """The model at its seeded start, the same for every worker and every trial of a seed."""
    torch.manual_seed(config.train.seed)
    model = MlimModel(model_config(config, prepared))
    if config.model.bert_checkpoint is not None:
        load_bert_weights(model, config.model.bert_checkpoint)
    return model.to(device)


def build_trainer(
    config: PretrainConfig, prepared: PreparedSet, device: torch.device | None = None, run: str | None = None
) -> Trainer:
    """A trainer at step 0, of the run in folder `run`."""
    order = stream_order(prepared, config.train, config.feed)
    return Trainer(build_model(config, prepared, device), config, order, run)


def run_masking(config: PretrainConfig, shape: MlimConfig) -> Masking:
    """What the run's batches depend on besides the records."""
    stages = stages_of(config.resolution, config.train.num_steps, shape)
    return Masking(config.masking, config.train.seed, shape.num_cells, stages=stages)
