"""The formula counts what the model really computes, as torch's own counter sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mlim_ray.config import ModelSize
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.model.flops import Contents, step_flops

NUM_TOKENS = 12


def counted(size: ModelSize, lengths: list[int], **shape: Any) -> tuple[float, Contents, MlimConfig]:
    """Operations of one step as torch counts them, with what was in it."""
    config = MlimConfig.for_size(size, vocab_size=300, mask_token_id=4, pad_token_id=0, max_tokens=NUM_TOKENS)
    config = replace(config, **shape)
    side, num_records = config.image_size, len(lengths)
    torch.manual_seed(0)
    present = torch.arange(NUM_TOKENS) < torch.tensor(lengths)[:, None]
    hidden_tokens = (torch.rand(present.shape) < 0.4) & present
    hidden_cells = torch.rand(num_records, config.num_cells) < 0.4
    with torch.device("meta"):
        model = MlimModel(config)
    model.to_empty(device="cpu")
    inputs = (torch.rand(num_records, 3, side, side), torch.ones(present.shape, dtype=torch.long), present)
    # The fused kernel for CPUs is unknown to the counter; the plain one is two products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits, picture = model(*inputs, hidden_cells, hidden_tokens)
        (logits.sum() + picture.sum()).backward()
    pairs = sum((config.num_cells + length) ** 2 for length in lengths)
    contents = Contents(num_records, int((~hidden_cells).sum()), int(present.sum()), int(hidden_tokens.sum()), pairs)
    return counter.get_total_flops(), contents, config


@pytest.mark.parametrize(("size", "num_layers"), [("tiny", 3), ("small", 2), ("base", 1), ("large", 1)])
def test_without_padding_the_formula_is_what_torch_counts(size: ModelSize, num_layers: int) -> None:
    flops, contents, shape = counted(size, [NUM_TOKENS] * 3, num_hidden_layers=num_layers)
    assert step_flops(shape, contents) == flops


def test_padding_costs_nothing_but_in_attention() -> None:
    lengths = [NUM_TOKENS, 5, 2]
    flops, contents, shape = counted("tiny", lengths)
    padded_pairs = len(lengths) * (shape.num_cells + NUM_TOKENS) ** 2
    assert step_flops(shape, contents) < flops
    assert step_flops(shape, contents._replace(num_pairs=padded_pairs)) == flops
