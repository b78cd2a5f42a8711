"""Shallow CNN (MLIM, section on the architecture): 2x2 stride-2 convolutions without overlap.

Legend: B records, N cells, V chosen cells of the whole batch, X pixels of a cell, D width.
"""

from torch import Tensor, nn

from mlim_ray.model.blocks import Grid, MergeBlocks


class ShallowCnn(nn.Module):
    """Picture [B, 3, H, W] float in [0, 1] -> embeddings of chosen cells [V, D].

    Kernel equals stride, so each pixel feeds exactly one cell: hiding a cell really removes its pixels, and a hidden
    cell need not be embedded. The grid, the widths and the GELUs are our choice (the paper gives 7 "layers" and about
    200 K parameters).
    """

    def __init__(self, channels: tuple[int, ...], grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        layers: list[nn.Module] = []
        for num_in, num_out in zip((3, *channels[:-1]), channels, strict=True):
            layers += [MergeBlocks(num_in, num_out), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, pixels_B3HW: Tensor, cell_V: Tensor) -> Tensor:
        """Embed cells, each from its own pixels alone; `cell_V` are indices into the flattened [B * N]."""
        cells_VX3 = self.grid.cells_of(pixels_B3HW).flatten(0, 1).index_select(0, cell_V)
        out: Tensor = self.layers(cells_VX3 * 2.0 - 1.0)
        return out[:, 0]
