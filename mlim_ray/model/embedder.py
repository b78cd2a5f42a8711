"""Image embedder (MLIM, section on the architecture): 2x2 stride-2 convolutions without overlap.

Legend: B records, C channels, N cells, D width.
"""

from torch import Tensor, nn


class ImageEmbedder(nn.Module):
    """Picture [B, 3, H, W] float in [0, 1] -> cell embeddings [B, N, D], cells in row-major order.

    Kernel equals stride, so each pixel feeds exactly one cell: hiding a cell really removes its pixels. The grid,
    the widths and the GELUs are our choice (the paper gives 7 "layers" and about 200 K parameters).
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for num_in, num_out in zip((3, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(num_in, num_out, kernel_size=2, stride=2), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Embed every cell from its own pixels alone."""
        grid: Tensor = self.layers(pixels_B3HW * 2.0 - 1.0)
        return grid.flatten(2).transpose(1, 2)
