"""Deep CNN (what MLIM's paper argues against; after ResNet, as in Pixel-BERT): residual 3x3 convolutions.

Legend: B records, N cells, V chosen cells of the whole batch, C channels, H and W pixels, h and w those of a level,
D width.

**The leak.** A 3x3 convolution reads its neighbours, so the embedding of a visible cell holds pixels of the cells
around it, hidden ones too: masks come after the embedder here, and what is to be rebuilt can be read from next door.
How far it reaches follows from the kernels: `reach` gives it in pixels. `blanks_hidden` makes the pixels of hidden
cells grey before the first convolution: nothing leaks then, but the embedder learns on pictures with holes, which it
does not meet afterwards. The default is the leak, since that is how such embedders were used (our reading).

Our choice: basic blocks as in ResNet-18, channels that halve from the encoder's width downwards, GELUs, and a norm over
the channels of each pixel; batch statistics would make records depend on each other, and those of a picture would leak
from everywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlim_ray.model.blocks import Grid


class DeepCnn(nn.Module):
    """Picture [B, 3, H, W] float in [0, 1] -> embeddings of chosen cells [V, D].

    Args:
        channels: of each level, which halves the sides; the last is the encoder's width.
        num_blocks: residual blocks of each level, of two convolutions each.
        grid: of the cells.
        blanks_hidden: whether the pixels of cells that are not chosen are made grey first.
    """

    def __init__(self, channels: tuple[int, ...], num_blocks: int, grid: Grid, blanks_hidden: bool) -> None:
        super().__init__()
        self.grid = grid
        self.num_blocks = num_blocks
        self.see: nn.Module = _Blanked(grid) if blanks_hidden else _AsItIs()
        levels: list[nn.Module] = []
        for num_in, num_out in zip((3, *channels[:-1]), channels, strict=True):
            levels.append(_Block(num_in, num_out, stride=2))
            levels += [_Block(num_out, num_out, stride=1) for _ in range(num_blocks - 1)]
        self.levels = nn.Sequential(*levels)

    def forward(self, pixels_B3HW: Tensor, cell_V: Tensor) -> Tensor:
        """Embed cells, from their pixels and those around; `cell_V` are indices into the flattened [B * N]."""
        states_BDhw: Tensor = self.levels(self.see(pixels_B3HW * 2.0 - 1.0, cell_V))
        return states_BDhw.flatten(2).transpose(1, 2).flatten(0, 1).index_select(0, cell_V)

    @property
    def reach(self) -> int:
        """Pixels beyond a cell's own, on any side, that its embedding may depend on."""
        reach, step = 0, 1
        for _ in range(self.grid.cell_size.bit_length() - 1):
            # The first of a level's convolutions works on the finer level's pixels, all others on its own.
            reach += step
            step *= 2
            reach += step * (2 * self.num_blocks - 1)
        return reach


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet's basic block)."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.first_norm = _ChannelNorm(num_out)
        self.second = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.second_norm = _ChannelNorm(num_out)
        same = stride == 1 and num_in == num_out
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(num_in, num_out, 1, stride, bias=False)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """[B, C_in, h, w] -> [B, C_out, h / stride, w / stride]."""
        inner = self.second_norm(self.second(F.gelu(self.first_norm(self.first(x_BChw)))))
        return F.gelu(inner + self.shortcut(x_BChw))


class _ChannelNorm(nn.LayerNorm):
    """The norm over the channels of each pixel, [B, C, h, w]."""

    def forward(self, x_BChw: Tensor) -> Tensor:
        return super().forward(x_BChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _AsItIs(nn.Module):
    def forward(self, pixels_B3HW: Tensor, cell_V: Tensor) -> Tensor:
        return pixels_B3HW


class _Blanked(nn.Module):
    """Zeros, which is grey, in the pixels of cells that are not chosen."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, pixels_B3HW: Tensor, cell_V: Tensor) -> Tensor:
        size = self.grid.cell_size
        side = pixels_B3HW.shape[-1] // size
        shown_BN = torch.zeros(len(pixels_B3HW) * side**2, dtype=pixels_B3HW.dtype, device=pixels_B3HW.device)
        shown_BN.index_fill_(0, cell_V, 1.0)
        shown_B1NN = shown_BN.view(-1, 1, side, side)
        return pixels_B3HW * shown_B1NN.repeat_interleave(size, 2).repeat_interleave(size, 3)
