"""The formula counts what the model really computes, as torch's own counter sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mlim_ray.config import ModelConfig, ModelSize
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.model.flops import Contents, step_flops

NUM_TOKENS = 12


def counted(model_config: ModelConfig, lengths: list[int], **shape: Any) -> tuple[float, Contents, MlimConfig]:
    """Operations of one step as torch counts them, with what was in it."""
    config = MlimConfig.of(model_config, vocab_size=300, mask_token_id=4, pad_token_id=0, max_tokens=NUM_TOKENS)
    config = replace(config, **shape)
    side, num_records = config.image_size, len(lengths)
    torch.manual_seed(0)
    present = torch.arange(NUM_TOKENS) < torch.tensor(lengths)[:, None]
    hidden_tokens = (torch.rand(present.shape) < 0.4) & present
    # As many in every record: what removal leaves needs no padding either.
    hidden_cells = torch.rand(num_records, config.num_cells).argsort(1) < 0.4 * config.num_cells
    with torch.device("meta"):
        model = MlimModel(config)
    model.to_empty(device="cpu")
    inputs = (torch.rand(num_records, 3, side, side), torch.ones(present.shape, dtype=torch.long), present)
    # The fused kernel for CPUs is unknown to the counter; the plain one is two products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits, picture = model(*inputs, hidden_cells, hidden_tokens)
        (logits.sum() + picture.sum()).backward()
    pairs = sum((config.num_cells + length) ** 2 for length in lengths)
    num_visible = int((~hidden_cells).sum())
    visible_pairs = sum((num_visible // num_records + length) ** 2 for length in lengths)
    num_tokens, num_hidden = int(present.sum()), int(hidden_tokens.sum())
    contents = Contents(num_records * config.num_cells, num_visible, num_tokens, num_hidden, pairs, visible_pairs)
    return counter.get_total_flops(), contents, config


@pytest.mark.parametrize(("size", "num_layers"), [("tiny", 3), ("small", 2), ("base", 1), ("large", 1)])
def test_without_padding_the_formula_is_what_torch_counts(size: ModelSize, num_layers: int) -> None:
    flops, contents, shape = counted(ModelConfig(size=size), [NUM_TOKENS] * 3, num_hidden_layers=num_layers)
    assert step_flops(shape, contents) == flops


@pytest.mark.parametrize("cell_size", [4, 16])
@pytest.mark.parametrize(
    "embedder",
    [{"kind": "shallow_cnn"}, {"kind": "linear_patches"}]
    + [{"kind": "deep_cnn", "num_blocks": blocks, "blanks_hidden": blocks == 1} for blocks in (1, 2)],
    ids=str,
)
def test_every_embedder_and_cell_size_is_counted(embedder: dict[str, Any], cell_size: int) -> None:
    model = ModelConfig.model_validate({"size": "tiny", "cell_size": cell_size, "embedder": embedder})
    flops, contents, shape = counted(model, [NUM_TOKENS] * 3)
    assert step_flops(shape, contents) == flops


@pytest.mark.parametrize("num_joint_layers", [None, 1, 2, 3])
@pytest.mark.parametrize(
    "encoder",
    [
        {"kind": "single_stream"},
        {"kind": "mixture", "num_layers": 2, "num_experts": 4},
        {"kind": "mixture", "num_layers": 1, "num_experts": 3, "num_used": 1},
        {"kind": "mixture", "num_layers": 2, "num_experts": 4, "expert_width_ratio": 0.25},
    ],
    ids=str,
)
def test_every_encoder_is_counted(encoder: dict[str, Any], num_joint_layers: int | None) -> None:
    model = ModelConfig.model_validate({"size": "tiny", "encoder": encoder, "num_joint_layers": num_joint_layers})
    flops, contents, shape = counted(model, [NUM_TOKENS] * 3)
    assert step_flops(shape, contents) == flops


@pytest.mark.parametrize("embedder", ["shallow_cnn", "deep_cnn"])
def test_smaller_pictures_are_counted_as_such(embedder: str) -> None:
    model = ModelConfig.model_validate({"size": "tiny", "embedder": {"kind": embedder}})
    flops, contents, small = counted(model, [NUM_TOKENS] * 3, image_size=16)
    whole = counted(model, [NUM_TOKENS] * 3)[2]
    assert (small.num_cells, whole.num_cells) == (4, 16)
    assert step_flops(whole, contents) == flops


def test_padding_costs_nothing_but_in_attention() -> None:
    lengths = [NUM_TOKENS, 5, 2]
    flops, contents, shape = counted(ModelConfig(size="tiny"), lengths)
    padded_pairs = len(lengths) * (shape.num_cells + NUM_TOKENS) ** 2
    assert step_flops(shape, contents) < flops
    assert step_flops(shape, contents._replace(num_pairs=padded_pairs)) == flops
