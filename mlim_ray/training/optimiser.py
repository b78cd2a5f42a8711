"""AdamW, warm-up and cosine (the paper names no optimiser: our choice)."""

import math

from torch import nn

from mlim_ray.config import TrainConfig
from mlim_ray.training.adamw import AdamW


def make_optimiser(model: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW whose weight decay spares biases, norms, embeddings and positions."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim < 2 or name.endswith("_positions") or id(parameter) in embeddings
        (spared if plain else decayed).append(parameter)
    return AdamW([(decayed, config.weight_decay), (spared, 0.0)], betas=(config.beta1, config.beta2))


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of the update that `step` makes: linear warm-up, then a cosine down to zero."""
    assert config.learning_rate != "auto", "configs are resolved before a run starts"
    num_warmup_steps = max(1, round(config.warmup_ratio * config.num_steps))
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    done = (step - num_warmup_steps) / max(1, config.num_steps - num_warmup_steps)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
