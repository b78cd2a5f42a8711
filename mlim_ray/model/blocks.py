"""2x2 stride-2 convolutions as products of matrices.

Legend: B records, N cells, X pixels of a cell, H and W pixels of a picture, E = 3 * H * W values, C channels.

Kernel equals stride, so no pixel is read twice. With the pixels of a cell in Z-order (the four of every 2x2 block side
by side, blocks of blocks likewise), merging blocks or splitting them is a reshape and one matrix product, where a
convolution's library sorts the pixels anew for each of these narrow layers.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Grid(NamedTuple):
    """Square pictures in square cells of one size, however many."""

    cell_size: int
    """pixels in a row of a cell, a power of two"""

    def cells_of(self, pixels_B3HW: Tensor) -> Tensor:
        """Cells in row-major order, the pixels of each in Z-order: [B, 3, H, W] -> [B, N, X, 3]."""
        side = pixels_B3HW.shape[-1] // self.cell_size
        place_E = self._places(side, pixels_B3HW.device)
        cells_BE: Tensor = _Reorder.apply(pixels_B3HW.flatten(1), _inverse(place_E), place_E)
        return cells_BE.view(-1, side**2, self.cell_size**2, 3)

    def picture_of(self, cells_BNX3: Tensor) -> Tensor:
        """The reverse of `cells_of`: [B, N, X, 3] -> [B, 3, H, W]."""
        # torch.compile would cut what it compiles at math.isqrt.
        side = round(cells_BNX3.shape[1] ** 0.5)
        place_E = self._places(side, cells_BNX3.device)
        pixels_BE: Tensor = _Reorder.apply(cells_BNX3.flatten(1), place_E, _inverse(place_E))
        return pixels_BE.view(-1, 3, side * self.cell_size, side * self.cell_size)

    def _places(self, side: int, device: torch.device) -> Tensor:
        """Where in [N, X, 3] each value of [3, H, W] lies, as indices into the flattened ones; N is `side` squared."""
        num_pixels = self.cell_size**2
        position = torch.arange(side * self.cell_size, device=device)
        bit = torch.arange(self.cell_size.bit_length() - 1, device=device)
        spread = ((position[:, None] % self.cell_size >> bit & 1) << 2 * bit).sum(1)
        cell = num_pixels * (position // self.cell_size)
        place_HW = (side * cell + 2 * spread)[:, None] + (cell + spread)
        return (3 * place_HW + torch.arange(3, device=device)[:, None, None]).flatten()


class MergeBlocks(nn.Conv2d):
    """The convolution on pixels in Z-order: [..., 4 * X, C_in] -> [..., X, C_out]."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out, kernel_size=2, stride=2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Four neighbours become one."""
        blocks = pixels.reshape(*pixels.shape[:-2], pixels.shape[-2] // 4, 4 * self.in_channels)
        return F.linear(blocks, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


class SplitBlocks(nn.ConvTranspose2d):
    """The transposed convolution on pixels in Z-order: [..., X, C_in] -> [..., 4 * X, C_out]."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out, kernel_size=2, stride=2)

    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        """One becomes four neighbours."""
        assert self.bias is not None
        blocks = F.linear(pixels, self.weight.permute(2, 3, 1, 0).flatten(0, 2), self.bias.repeat(4))
        return blocks.view(*pixels.shape[:-2], 4 * pixels.shape[-2], self.out_channels)


def _inverse(place_E: Tensor) -> Tensor:
    return torch.empty_like(place_E).scatter_(0, place_E, torch.arange(len(place_E), device=place_E.device))


class _Reorder(torch.autograd.Function):
    """A permutation's gradient is the inverse permutation; autograd's own for an index adds up, which is slower."""

    @staticmethod
    def forward(ctx: Any, x_BE: Tensor, source_E: Tensor, inverse_E: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_E)
        return x_BE.index_select(1, source_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BE: Tensor) -> tuple[Tensor, None, None]:
        (inverse_E,) = ctx.saved_tensors
        return grad_BE.index_select(1, inverse_E), None, None
