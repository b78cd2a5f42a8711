"""Fine-tuning: a short, seeded training of any module on a loss of numbered examples."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlim_ray.config import AUTO, TrainConfig
from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.model.sizes import fine_tuning_rate_of
from mlim_ray.training.optimiser import learning_rate_at, make_optimiser
from mlim_ray.training.precision import autocast

_MOST_NORM = 1.0
"""gradients are clipped at it, as in pre-training"""


def fine_tune(
    module: nn.Module,
    loss_of: Callable[[NDArray[np.int64], np.random.Generator], Tensor],
    num_examples: int,
    config: FineTuneConfig,
    width: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train `module` in place; the same seed gives the same weights on CPUs.

    Args:
        module: all that is trained: an encoder with its head.
        loss_of: the loss of the examples with these indices; what it draws, it draws from the generator.
        num_examples: each is seen once an epoch, in a seeded order.
        config: how long and how fast.
        width: of its encoder.
        seed: of the order and of all draws.
        on_progress: told how many steps of how many are done.
    """
    batch_size = min(config.batch_size, num_examples)
    num_batches = max(1, num_examples // batch_size)
    num_steps = max(1, round(config.num_epochs * num_batches))
    schedule = TrainConfig(
        num_steps=num_steps,
        learning_rate=fine_tuning_rate_of(width) if config.learning_rate == AUTO else config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_ratio=config.warmup_ratio,
    )
    # A model that was loaded to be asked is frozen, and so is a copy of it.
    module.requires_grad_(True)
    optimiser = make_optimiser(module, schedule)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    device_type = next(module.parameters()).device.type
    module.train()
    order = np.empty(0, np.int64)
    for step in range(num_steps):
        if len(order) < batch_size:
            order = rng.permutation(num_examples)
        batch, order = order[:batch_size], order[batch_size:]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, schedule)
        with autocast(device_type, "bfloat16" if device_type == "cuda" else "float32"):
            loss = loss_of(batch, rng)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), _MOST_NORM)
        optimiser.step()
        if on_progress is not None:
            on_progress(step + 1, num_steps)
    module.eval()
