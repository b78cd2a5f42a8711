"""The model keeps its promises: padding changes nothing, what is hidden is gone, every weight learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from mlim_ray.config import MamConfig, ModelSize
from mlim_ray.masking import mode_names
from mlim_ray.model import SIZES, MlimConfig, MlimModel
from mlim_ray.model.pretrained import MlimPreTrainedModel
from mlim_ray.objectives import mlm_terms, recon_terms
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Masking, make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import (
    IMAGE_SIZE,
    MASK,
    NUM_CELLS,
    VOCAB_SIZE,
    make_config,
    make_masking,
    make_model,
    make_records,
)

CPU = torch.device("cpu")


def make_inputs(num_records: int = 12, seed: int = 0, masking: Masking | None = None) -> BatchTensors:
    return to_tensors(make_batch(make_records(num_records, seed), 0, masking or make_masking(make_config())), CPU)


def num_weights(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(params=[True, False], ids=["pre_norm", "post_norm"])
def model(request: pytest.FixtureRequest) -> MlimModel:
    return make_model(pre_norm=request.param).eval()


@torch.inference_mode()
def test_padding_changes_no_output(model: MlimModel) -> None:
    inputs = make_inputs()
    short = model.encode(*inputs[:5])
    extra = 10 - inputs.token_ids_BT.shape[1] + 4
    wide = make_model(max_tokens=14, pre_norm=model.config.pre_norm).eval()
    wide.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k != "token_positions"}
        | {"token_positions": torch.cat([model.token_positions, torch.randn(4, 32)])}
    )
    junk = torch.randint(VOCAB_SIZE, (12, extra))
    padded_ids = torch.cat([inputs.token_ids_BT, junk], 1)
    present = torch.nn.functional.pad(inputs.token_present_BT, (0, extra))
    padded_ids[~present] = torch.randint(VOCAB_SIZE, ((~present).sum(),))
    hidden = torch.nn.functional.pad(inputs.token_hidden_BT, (0, extra))
    long = wide.encode(inputs.pixels_B3HW, padded_ids, present, inputs.cell_hidden_BN, hidden)
    torch.testing.assert_close(long.cells_BND, short.cells_BND, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        long.tokens_BTD[present], short.tokens_BTD[inputs.token_present_BT], rtol=1e-5, atol=1e-6
    )


@torch.inference_mode()
def test_other_records_of_the_batch_change_no_output(model: MlimModel) -> None:
    inputs = make_inputs()
    together = model.encode(*inputs[:5])
    alone = model.encode(*(part[3:4] for part in inputs[:5]))
    torch.testing.assert_close(together.cells_BND[3:4], alone.cells_BND, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_what_is_hidden_cannot_leak(model: MlimModel) -> None:
    inputs = make_inputs(num_records=24)
    assert inputs.cell_hidden_BN.any() and inputs.token_hidden_BT.any()
    cell_pixels = inputs.cell_hidden_BN.reshape(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    pixels = torch.where(cell_pixels, torch.rand_like(inputs.pixels_B3HW), inputs.pixels_B3HW)
    ids = torch.where(inputs.token_hidden_BT, torch.randint_like(inputs.token_ids_BT, VOCAB_SIZE), inputs.token_ids_BT)
    for before, after in zip(model(*inputs[:5]), model(pixels, ids, *inputs[2:5]), strict=True):
        assert torch.equal(before, after)
    visible = model.encode(pixels, ids, inputs.token_present_BT, inputs.cell_hidden_BN ^ True, inputs.token_hidden_BT)
    assert not torch.allclose(visible.cells_BND, model.encode(*inputs[:5]).cells_BND)


@torch.inference_mode()
def test_hidden_words_and_cells_share_the_embedding_of_mask(model: MlimModel) -> None:
    inputs = make_inputs()
    spelt_out = torch.where(inputs.token_hidden_BT, MASK, inputs.token_ids_BT)
    nothing = torch.zeros_like(inputs.token_hidden_BT)
    for hide, spell in zip(
        [*vars(model.encode(*inputs[:5])).values()],
        [
            *vars(
                model.encode(inputs.pixels_B3HW, spelt_out, inputs.token_present_BT, inputs.cell_hidden_BN, nothing)
            ).values()
        ],
        strict=True,
    ):
        assert torch.equal(hide, spell)
    before = model.encode(*inputs[:5]).cells_BND
    model.word_embeddings.weight[MASK] += 1.0
    changed = (model.encode(*inputs[:5]).cells_BND != before).any(-1)
    assert changed[inputs.cell_hidden_BN].all()


def test_each_pixel_feeds_exactly_one_cell() -> None:
    embedder = make_model().image_embedder
    for cell in range(NUM_CELLS):
        pixels = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, requires_grad=True)
        embedder(pixels, torch.tensor([cell])).square().sum().backward()
        row, column = divmod(cell, 4)
        reached = torch.zeros(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
        reached[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
        assert torch.equal((pixels.grad[0] != 0).any(0), reached)


def test_the_picture_is_painted_in_place() -> None:
    decoder = make_model().image_decoder
    states = torch.randn(1, NUM_CELLS, 32, requires_grad=True)
    decoder(states)[0, :, :4, 8:12].sum().backward()
    assert (states.grad[0] != 0).any(-1).nonzero().flatten().tolist() == [2]


def total_loss(model: MlimModel, inputs: BatchTensors) -> Tensor:
    logits, picture = model(*inputs[:5])
    terms = [
        mlm_terms(logits, inputs.token_ids_BT, inputs.token_hidden_BT),
        recon_terms(picture, inputs.pixels_B3HW, inputs.cell_hidden_BN, "masked"),
    ]
    return sum(sum_B.sum() / count_B.sum().clamp(min=1.0) for sum_B, count_B in terms)


@pytest.mark.parametrize("mode", mode_names(MamConfig()))
def test_every_weight_has_a_gradient_in_every_mode(model: MlimModel, mode: str) -> None:
    policy = MamConfig(
        image_heavy_probability=float(mode == "image_heavy"),
        text_heavy_probability=float(mode == "text_heavy"),
        image_light_ratio=0.3,
        text_light_ratio=0.5,
    )
    loss = total_loss(model, make_inputs(masking=Masking(policy, 0, NUM_CELLS)))
    loss.backward()
    assert loss.isfinite() and loss > 0
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    # Image-heavy records have no words to guess; text-heavy ones have, by the masked target, no pixels.
    without = {"image_heavy": ("mlm_head.",), "text_heavy": ("image_decoder.",), "light": ()}[mode]
    for name, gradient in gradients.items():
        assert gradient.any() != name.startswith(without), name


def test_a_batch_without_any_target_is_a_clean_zero(model: MlimModel) -> None:
    inputs = make_inputs()
    inputs = inputs._replace(
        cell_hidden_BN=torch.zeros_like(inputs.cell_hidden_BN),
        token_hidden_BT=torch.zeros_like(inputs.token_hidden_BT),
    )
    loss = total_loss(model, inputs)
    loss.backward()
    assert loss.item() == 0.0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


def test_weights_start_as_in_bert() -> None:
    model = make_model(embedder_channels=(16, 128), vocab_size=500, pre_norm=False)
    for weight in (model.word_embeddings.weight, model.cell_positions, model.token_positions):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert not module.bias.any()


@torch.inference_mode()
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_an_untrained_model_guesses_words_evenly(size: ModelSize) -> None:
    torch.manual_seed(0)
    config = MlimConfig.for_size(size, vocab_size=3000, mask_token_id=MASK, pad_token_id=0, max_tokens=10)
    model = MlimModel(config).eval()
    side = config.image_size
    ids = torch.randint(5, 3000, (8, 10))
    hidden = torch.rand(8, 10) < 0.5
    logits, picture = model(
        torch.rand(8, 3, side, side),
        ids,
        torch.ones(8, 10, dtype=torch.bool),
        torch.rand(8, config.num_cells) < 0.5,
        hidden,
    )
    mean = mlm_terms(logits, ids, hidden).sum_B.sum() / hidden.sum()
    assert mean.item() == pytest.approx(math.log(3000), abs=0.2)
    assert picture.shape == (8, 3, side, side)
    assert picture.min() >= 0 and picture.max() <= 1


@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_runs_and_fits_together(size: ModelSize) -> None:
    config = MlimConfig.for_size(size, vocab_size=100, mask_token_id=MASK, pad_token_id=0, max_tokens=12)
    # One layer has every shape of the size; the others only cost memory.
    config = replace(config, num_hidden_layers=1)
    model = MlimModel(config)
    side = config.image_size
    assert config.num_cells * config.cell_size**2 == side**2
    with torch.inference_mode():
        states = model.encode(
            torch.rand(2, 3, side, side),
            torch.zeros(2, 12, dtype=torch.long),
            torch.ones(2, 12, dtype=torch.bool),
            torch.zeros(2, config.num_cells, dtype=torch.bool),
            torch.zeros(2, 12, dtype=torch.bool),
        )
        assert states.cells_BND.shape == (2, config.num_cells, config.hidden_size)
        assert states.tokens_BTD.shape == (2, 12, config.hidden_size)
        assert model.mlm_logits(states.tokens_BTD[:, 0]).shape == (2, 100)
        assert model.reconstruct(states.cells_BND).shape == (2, 3, side, side)


def test_large_has_the_papers_numbers_of_parameters() -> None:
    with torch.device("meta"):
        config = MlimConfig.for_size("large", vocab_size=30_522, mask_token_id=103, pad_token_id=0, max_tokens=64)
        model = MlimModel(config)
        bert = BertModel(
            BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
        )
    assert (config.image_size, config.num_cells) == (384, 144)
    assert num_weights(model.image_embedder) == 206_536
    assert num_weights(model.image_decoder) == 2_787_011
    assert num_weights(model.encoder) == num_weights(bert.encoder)


def test_a_saved_model_is_the_same_model(tmp_path: Path, model: MlimModel) -> None:
    MlimPreTrainedModel.of(model).save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is MlimPreTrainedModel and not loaded.training
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert loaded.config.shape == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    inputs = make_inputs()
    with torch.inference_mode():
        for ours, theirs in zip(model(*inputs[:5]), MlimModel.forward(loaded, *inputs[:5]), strict=True):
            assert torch.equal(ours, theirs)


def test_dropout_is_off_unless_asked_for_and_in_evaluation() -> None:
    inputs = make_inputs()
    for ratio in (0.0, 0.5):
        model = make_model(dropout_ratio=ratio)
        with torch.inference_mode():
            drops = []
            for training in (True, False):
                model.train(training)
                drops.append(not torch.equal(*(model.encode(*inputs[:5]).cells_BND for _ in range(2))))
        assert drops == [ratio > 0.0, False]
