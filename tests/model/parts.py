"""The parts that a model can be made of, as shapes for `make_model`, and what is trained on in their tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlim_ray.model import MlimModel
from mlim_ray.objectives import mlm_terms, recon_terms
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_records

LINEAR: dict[str, Any] = {"embedder_kind": "linear_patches", "embedder_channels": (32,)}
DEEP: dict[str, Any] = {"embedder_kind": "deep_cnn", "embedder_channels": (16, 32), "embedder_blocks": 2}
BLANKED: dict[str, Any] = DEEP | {"embedder_blanks_hidden": True}
REMOVING: dict[str, Any] = {"num_hidden_layers": 3, "num_joint_layers": 1}
MIXTURE: dict[str, Any] = {"encoder_kind": "mixture", "num_mixture_layers": 1, "num_experts": 3, "num_experts_used": 2}
PARTS: dict[str, dict[str, Any]] = {
    "linear": LINEAR,
    "deep": DEEP,
    "blanked": BLANKED,
    "removing": REMOVING,
    "removing, post-norm": REMOVING | {"pre_norm": False},
    "mixture": MIXTURE,
    "mixture, removing": MIXTURE | REMOVING | {"num_mixture_layers": 2, "num_experts_used": 1},
}
"""every part once, and those that meet"""


def make_inputs(num_records: int = 12) -> BatchTensors:
    """A masked batch, each mode of MAM in it."""
    batch = make_batch(make_records(num_records), 0, make_masking(make_config()))
    return to_tensors(batch, torch.device("cpu"))


def total_loss(model: MlimModel, inputs: BatchTensors) -> Tensor:
    """MLM and RECON of the hidden cells alone."""
    logits, picture = model(*inputs[:6])
    terms = [
        mlm_terms(logits, inputs.token_ids_BT, inputs.token_hidden_BT),
        recon_terms(picture, inputs.pixels_B3HW, inputs.cell_hidden_BN, "masked"),
    ]
    return sum(sum_B.sum() / count_B.sum().clamp(min=1.0) for sum_B, count_B in terms)
