"""Linear patches (ViLT, after ViT): a cell's pixels through one matrix.

Legend: B records, N cells, V chosen cells of the whole batch, X pixels of a cell, D width.
"""

from torch import Tensor, nn

from mlim_ray.model.blocks import Grid


class LinearPatches(nn.Module):
    """Picture [B, 3, H, W] float in [0, 1] -> embeddings of chosen cells [V, D].

    As with the shallow CNN each pixel feeds exactly one cell. ViLT's are 32 px in pictures of 384, and begin with the
    weights of a ViT; here they begin as BERT's matrices do (our choice).
    """

    def __init__(self, width: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.projection = nn.Linear(3 * grid.cell_size**2, width)

    def forward(self, pixels_B3HW: Tensor, cell_V: Tensor) -> Tensor:
        """Embed cells, each from its own pixels alone; `cell_V` are indices into the flattened [B * N]."""
        cells_VX3 = self.grid.cells_of(pixels_B3HW).flatten(0, 1).index_select(0, cell_V)
        out: Tensor = self.projection(cells_VX3.flatten(1) * 2.0 - 1.0)
        return out
