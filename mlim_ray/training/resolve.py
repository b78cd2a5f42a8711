"""Replaces every "auto" of a config by what the machine and the model size decide."""

from typing import TypeVar

from mlim_ray.config import AUTO, PretrainConfig
from mlim_ray.model.sizes import SIZES

Config = TypeVar("Config", bound=PretrainConfig)


def resolve_size(config: Config, *, has_gpu: bool) -> Config:
    """The config with the model's size, and all that follows from it alone, decided."""
    size = config.model.size
    if size == AUTO:
        size = "base" if has_gpu else "tiny"
    shape = SIZES[size]
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
    return config.model_copy(update={"model": model, "train": train, "prepare": prepare})
