"""AdamW, warm-up and cosine (the paper names no optimiser: our choice)."""

import math

import torch
from torch import nn

from mlim_ray.config import TrainConfig


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW whose weight decay spares biases, norms, embeddings and positions."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.endswith("_positions") or id(parameter) in embeddings
        (spared if plain else decayed).append(parameter)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        lr=0.0,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of the update that `step` makes: linear warm-up, then a cosine down to zero."""
    assert config.learning_rate != "auto", "configs are resolved before a run starts"
    num_warmup_steps = max(1, round(config.warmup_ratio * config.num_steps))
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    done = (step - num_warmup_steps) / max(1, config.num_steps - num_warmup_steps)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
