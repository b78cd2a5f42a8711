"""Products of matrices on pixels in Z-order are the convolutions that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mlim_ray.model.blocks import Grid, MergeBlocks, SplitBlocks


@pytest.mark.parametrize(("side", "cell_size"), [(1, 2), (3, 4), (4, 8), (2, 16)])
def test_cells_hold_their_own_pixels_and_give_the_picture_back(side: int, cell_size: int) -> None:
    grid, size = Grid(cell_size), side * cell_size
    pixels = torch.rand(2, 3, size, size)
    cells = grid.cells_of(pixels)
    assert torch.equal(grid.picture_of(cells), pixels)
    for row in range(side):
        for column in range(side):
            own = pixels[:, :, row * cell_size : (row + 1) * cell_size, column * cell_size : (column + 1) * cell_size]
            found = cells[:, side * row + column]
            assert torch.equal(found.sort(1).values, own.flatten(2).transpose(1, 2).sort(1).values)
            # The first four are the top left block, row by row.
            assert torch.equal(found[:, :4], own[:, :, :2, :2].flatten(2).transpose(1, 2))


def test_merging_is_the_convolution() -> None:
    torch.manual_seed(0)
    grid, layers = Grid(4), [MergeBlocks(3, 8), MergeBlocks(8, 5)]
    pixels = torch.rand(2, 3, 12, 12, requires_grad=True)
    expected, found = pixels, grid.cells_of(pixels)
    for layer in layers:
        expected = F.conv2d(expected, layer.weight, layer.bias, stride=2)
        found = layer(found)
    torch.testing.assert_close(found.view(2, 9, 5), expected.flatten(2).transpose(1, 2))
    weights = [pixels, *(parameter for layer in layers for parameter in layer.parameters())]
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_splitting_is_the_transposed_convolution() -> None:
    torch.manual_seed(0)
    grid, layers = Grid(4), [SplitBlocks(6, 5), SplitBlocks(5, 3)]
    states = torch.rand(2, 9, 6, requires_grad=True)
    expected, found = states.transpose(1, 2).unflatten(2, (3, 3)), states[:, :, None]
    for layer in layers:
        expected = F.conv_transpose2d(expected, layer.weight, layer.bias, stride=2)
        found = layer(found)
    picture = grid.picture_of(found)
    torch.testing.assert_close(picture, expected)
    weights = [states, *(parameter for layer in layers for parameter in layer.parameters())]
    scale = torch.rand_like(picture)
    for ours, theirs in zip(
        torch.autograd.grad((scale * picture).sum(), weights),
        torch.autograd.grad((scale * expected).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
