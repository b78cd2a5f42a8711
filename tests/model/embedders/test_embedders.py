"""Embedders against plain convolutions, how far a deep one reads, and cells of every size."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mlim_ray.config import ModelConfig
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.model.blocks import Grid
from mlim_ray.model.embedders import DeepCnn, LinearPatches
from mlim_ray.training.resolve import resolve_size
from tests.builders import make_config, make_model
from tests.model.parts import DEEP


def shape_of(kind: str, cell_size: int | None = None, size: str = "tiny") -> MlimConfig:
    model = ModelConfig.model_validate({"size": size, "cell_size": cell_size, "embedder": {"kind": kind}})
    return MlimConfig.of(model, vocab_size=60, mask_token_id=4, pad_token_id=0, max_tokens=8)


def test_linear_patches_are_one_convolution_over_the_picture() -> None:
    torch.manual_seed(0)
    embedder, size = LinearPatches(6, Grid(4)), 4
    one_cell = LinearPatches(6, Grid(4))
    one_cell.load_state_dict(embedder.state_dict())
    unit_pixels = torch.eye(3 * size**2).view(-1, 3, size, size)
    answers = one_cell((unit_pixels + 1.0) / 2.0, torch.arange(3 * size**2)) - embedder.projection.bias
    weight = answers.T.reshape(6, 3, size, size)
    pixels, cells = torch.rand(2, 3, 12, 12), torch.tensor([0, 4, 5, 9, 17])
    expected = F.conv2d(pixels * 2.0 - 1.0, weight, embedder.projection.bias, stride=size)
    torch.testing.assert_close(embedder(pixels, cells), expected.flatten(2).transpose(1, 2).flatten(0, 1)[cells])


def test_each_pixel_of_linear_patches_feeds_exactly_one_cell() -> None:
    embedder = LinearPatches(5, Grid(4))
    for cell in range(9):
        pixels = torch.rand(1, 3, 12, 12, requires_grad=True)
        embedder(pixels, torch.tensor([cell])).sum().backward()
        row, column = divmod(cell, 3)
        reached = torch.zeros(12, 12, dtype=torch.bool)
        reached[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
        assert torch.equal((pixels.grad[0] != 0).any(0), reached)


@pytest.mark.parametrize(("num_blocks", "levels"), [(1, 1), (1, 2), (2, 2), (1, 3)])
def test_a_deep_cnn_leaks_as_far_as_its_kernels_reach(num_blocks: int, levels: int) -> None:
    torch.manual_seed(0)
    cell, side = 2**levels, 13
    embedder = DeepCnn((4,) * levels, num_blocks, Grid(cell), blanks_hidden=False)
    pixels = torch.rand(1, 3, side * cell, side * cell, requires_grad=True)
    middle = side // 2 * (side + 1)
    embedder(pixels, torch.tensor([middle])).square().sum().backward()
    rows = (pixels.grad[0] != 0).any(0).any(1).nonzero().flatten()
    own = side // 2 * cell
    # A stride of two reads one pixel less beyond the far side.
    assert own - int(rows.min()) == embedder.reach
    assert own < int(rows.max()) - cell + 1 <= own + embedder.reach


def test_blanking_hides_pixels_from_the_visible_cells_and_from_nothing_else() -> None:
    torch.manual_seed(0)
    leaking = make_model(**DEEP).image_embedder
    blanked = make_model(**DEEP | {"embedder_blanks_hidden": True}).image_embedder
    assert set(leaking.state_dict()) == set(blanked.state_dict())
    pixels = torch.rand(2, 3, 16, 16, requires_grad=True)
    everything, some = torch.arange(32), torch.tensor([0, 3, 5, 6, 20, 31])
    assert torch.equal(leaking(pixels, everything), blanked(pixels, everything))
    reached = []
    for embedder in (leaking, blanked):
        (gradient,) = torch.autograd.grad(embedder(pixels, some).square().sum(), pixels)
        cells = gradient.abs().sum(1).unflatten(1, (4, 4)).unflatten(3, (4, 4)).sum((2, 4)).flatten()
        reached.append((cells > 0).nonzero().flatten().tolist())
    assert reached[1] == some.tolist()
    assert set(reached[0]) > set(some.tolist())


@pytest.mark.parametrize(
    ("kind", "cell_size"), list(product(["shallow_cnn", "linear_patches", "deep_cnn"], [2, 4, 8, 16, 32]))
)
def test_cells_of_every_size_fit_together(kind: str, cell_size: int) -> None:
    shape = shape_of(kind, cell_size)
    assert (shape.cell_size, shape.num_cells, shape.hidden_size) == (cell_size, (32 // cell_size) ** 2, 128)
    model = MlimModel(shape)
    with torch.inference_mode():
        cells = torch.rand(1, shape.num_cells) < 0.5
        ids, present = torch.ones(1, 8, dtype=torch.long), torch.ones(1, 8, dtype=torch.bool)
        _, picture = model(torch.rand(1, 3, 32, 32), ids, present, cells, ~present)
    assert picture.shape == (1, 3, 32, 32)


def test_a_sizes_own_cells_are_as_without_the_knob() -> None:
    for size, own in (("tiny", 8), ("small", 16), ("base", 32), ("large", 32)):
        assert shape_of("shallow_cnn", own, size) == shape_of("shallow_cnn", None, size)


@pytest.mark.parametrize(
    ("cell_size", "message"),
    [(64, "expected one of 2, 4, 8, 16, 32"), (6, "cell-size 6 does not fit pictures of 32 pixels")],
)
def test_cells_that_do_not_fit_are_refused_before_anything_is_prepared(cell_size: int, message: str) -> None:
    config = make_config(model={"size": "tiny", "cell_size": cell_size})
    with pytest.raises(ValueError, match=message):
        resolve_size(config, has_gpu=False)
    with pytest.raises(ValueError, match=message):
        shape_of("deep_cnn", cell_size)


def test_shapes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="one fewer in the decoder"):
        make_model(decoder_channels=(16, 8))
    with pytest.raises(ValueError, match="cannot be cut into cells of 4 pixels"):
        make_model(image_size=18)
    with pytest.raises(ValidationError, match="num_blocks"):
        ModelConfig.model_validate({"embedder": {"kind": "deep_cnn", "num_blocks": 0}})
