"""Image decoder (MLIM, section on the architecture): transposed convolutions and a sigmoid.

Legend: B records, N cells, D width.
"""

from torch import Tensor, nn

from mlim_ray.model.blocks import Grid, SplitBlocks


class ImageDecoder(nn.Module):
    """Cell states [B, N, D] -> picture [B, 3, H, W] in [0, 1].

    No skip connection from the embedder: it would leak the hidden cells. Widths and GELUs are our choice (the paper
    gives 10 "layers" and about 2.8 M parameters).
    """

    def __init__(self, width: int, channels: tuple[int, ...], grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        layers: list[nn.Module] = []
        for num_in, num_out in zip((width, *channels), (*channels, 3), strict=True):
            layers += [SplitBlocks(num_in, num_out), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def forward(self, cell_states_BND: Tensor) -> Tensor:
        """Paint the picture from the states of its cells."""
        return self.grid.picture_of(self.layers(cell_states_BND[:, :, None]))
