"""Replaces every "auto" of a config by what the machine and the model size decide."""

from typing import TypeVar

from mlim_ray.config import AUTO, PretrainConfig
from mlim_ray.config.pairs_run import PairsRunConfig
from mlim_ray.model.sizes import SIZES, fine_tuning_rate_of
from mlim_ray.training.resolution import first_side

Config = TypeVar("Config", bound=PretrainConfig)


def resolve_size(config: Config, *, has_gpu: bool) -> Config:
    """The config with the model's size, and all that follows from it alone, decided."""
    size = config.model.size
    if size == AUTO:
        size = "base" if has_gpu else "tiny"
    shape = SIZES[size].with_cells(config.model.cell_size)
    first_side(config.resolution, shape.image_size // shape.cell_size)
    train = config.train
    if train.learning_rate == AUTO:
        train = train.model_copy(update={"learning_rate": shape.learning_rate})
    if train.precision == AUTO:
        train = train.model_copy(update={"precision": "bfloat16" if has_gpu else "float32"})
    prepare = config.prepare
    if prepare.image_size == AUTO:
        prepare = prepare.model_copy(update={"image_size": shape.image_size})
    if prepare.image_size != shape.image_size:
        raise ValueError(
            f"--prepare.image-size {prepare.image_size} does not fit --model.size {size}, which takes pictures of "
            f"{shape.image_size} pixels; leave --prepare.image-size out, or choose another size"
        )
    model = config.model.model_copy(update={"size": size})
    resolved = config.model_copy(update={"model": model, "train": train, "prepare": prepare})
    if isinstance(config, PairsRunConfig) and config.pairs.fine_tune.learning_rate == AUTO:
        rate = fine_tuning_rate_of(shape.embedder_channels[-1])
        fine_tune = config.pairs.fine_tune.model_copy(update={"learning_rate": rate})
        pairs = config.pairs.model_copy(update={"fine_tune": fine_tune})
        resolved = resolved.model_copy(update={"pairs": pairs})
    return resolved
