"""The encoder with a row for every place gives what the packed one gives, and padding moves nothing."""

from __future__ import annotations

import pytest
import torch

from mlim_ray.model import MlimModel
from mlim_ray.model.named_inputs import named_inputs
from mlim_ray.model.padded import PaddedEncoder
from mlim_ray.model.pooling import pooled_states
from tests.builders import IMAGE_SIZE, MASK, MAX_TOKENS, NUM_CELLS, VOCAB_SIZE, make_model

DEEP = {"embedder_kind": "deep_cnn", "embedder_channels": (16, 32), "embedder_blocks": 1}
SHAPES = {
    "as published": {},
    "norm after": {"pre_norm": False},
    "linear patches": {"embedder_kind": "linear_patches"},
    "deep": DEEP,
    "deep, hidden cells blanked": {**DEEP, "embedder_blanks_hidden": True},
    "hidden cells removed": {"num_joint_layers": 1},
    "experts": {"num_mixture_layers": 1, "num_experts": 3, "num_experts_used": 1},
    "two experts of three, hidden cells removed": {
        **{"num_mixture_layers": 2, "num_experts": 3, "num_experts_used": 2},
        "num_joint_layers": 1,
    },
}


def batch(num_records: int, num_tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Texts of any length, words and cells hidden; the first picture wholly."""
    made = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB_SIZE, (num_records, num_tokens), generator=made)
    ids[:, 1::3] = MASK
    lengths = torch.randint(2, num_tokens + 1, (num_records, 1), generator=made)
    hidden = torch.rand(num_records, NUM_CELLS, generator=made) < 0.4
    hidden[0] = True
    return {
        "pixel_values": torch.rand(num_records, 3, IMAGE_SIZE, IMAGE_SIZE, generator=made),
        "input_ids": ids,
        "attention_mask": (torch.arange(num_tokens) < lengths).long(),
        "bool_masked_pos": hidden,
    }


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def model(request: pytest.FixtureRequest) -> MlimModel:
    return make_model(**request.param).eval()


@torch.inference_mode()
def test_it_gives_what_the_packed_encoder_gives(model: MlimModel) -> None:
    padded = PaddedEncoder(model)
    for num_records, num_tokens in ((1, 2), (3, 5), (6, MAX_TOKENS)):
        given = batch(num_records, num_tokens)
        inputs = named_inputs(model, **given)
        states = model.encode(*inputs)
        found = padded(**given)
        expected = torch.cat([states.cells_BND, states.tokens_BTD], 1)
        torch.testing.assert_close(found.last_hidden_state, expected, rtol=1e-5, atol=1e-5)
        pooled = pooled_states(states.cells_BND, states.tokens_BTD, *inputs[2:])
        torch.testing.assert_close(found.pooler_output, pooled, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_neither_padding_nor_hidden_pixels_move_an_output(model: MlimModel) -> None:
    padded = PaddedEncoder(model)
    given = batch(4, 6)
    before = padded(**given)
    junk = given["input_ids"].where(given["attention_mask"] == 1, (given["input_ids"] + 7) % VOCAB_SIZE)
    longer = {
        "input_ids": torch.cat([junk, torch.full((4, 3), MASK)], 1),
        "attention_mask": torch.cat([given["attention_mask"], torch.zeros(4, 3, dtype=torch.long)], 1),
    }
    after = padded(**{**given, **longer})
    torch.testing.assert_close(after.last_hidden_state[:, : NUM_CELLS + 6], before.last_hidden_state)
    torch.testing.assert_close(after.pooler_output, before.pooler_output)
    assert not after.last_hidden_state[:, NUM_CELLS + 6 :].any()
    if model.config.embedder_kind == "deep_cnn" and not model.config.embedder_blanks_hidden:
        return
    side = IMAGE_SIZE // model.config.cell_size
    covered = given["bool_masked_pos"].view(4, 1, side, side)
    covered = covered.repeat_interleave(model.config.cell_size, 2).repeat_interleave(model.config.cell_size, 3)
    changed = padded(**{**given, "pixel_values": given["pixel_values"].where(~covered, torch.rand(()))})
    torch.testing.assert_close(changed.last_hidden_state, before.last_hidden_state)


def test_the_model_itself_is_left_as_it_was() -> None:
    model = make_model(num_mixture_layers=1, num_experts=3, num_experts_used=1).train()
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    PaddedEncoder(model)
    assert model.training and set(weights) == set(model.state_dict())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
