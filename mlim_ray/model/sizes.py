"""What tiny, small, base and large mean.

`large` follows the paper as far as it is known (384 px, BERT-large, embedder about 200 K and decoder about 2.8 M
parameters); its 12x12 grid and channel widths, and the three smaller sizes, are our choice.
"""

from typing import NamedTuple, Self

from mlim_ray.config import ModelSize


class Shape(NamedTuple):
    """Everything a size decides."""

    image_size: int
    """side of the picture in pixels"""
    embedder_channels: tuple[int, ...]
    """output channels of each 2x2 stride-2 convolution; the last one is the encoder's width"""
    decoder_channels: tuple[int, ...]
    """output channels of each 2x2 stride-2 transposed convolution but the last, which gives the 3 colours"""
    num_layers: int
    num_heads: int
    pre_norm: bool
    """normalise before each sub-layer (trains better when small) or after it, as BERT does"""
    learning_rate: float
    """peak learning rate that suits the size"""

    @property
    def cell_size(self) -> int:
        """Side of an image cell in pixels."""
        return 1 << len(self.embedder_channels)

    def with_cells(self, cell_size: int | None) -> Self:
        """The same size with cells of so many pixels a side; None: its own.

        Fewer levels leave out the finest ones. More levels are finer ones of half the channels, at least 4
        (our choice).

        Raises:
            ValueError: it is no power of two, or does not divide the picture.
        """
        if cell_size is None or cell_size == self.cell_size:
            return self
        if cell_size < 2 or cell_size & cell_size - 1 or self.image_size % cell_size:
            fitting = [side for side in (1 << n for n in range(1, 16)) if self.image_size % side == 0]
            raise ValueError(
                f"--model.cell-size {cell_size} does not fit pictures of {self.image_size} pixels; expected one of "
                f"{', '.join(map(str, fitting))}"
            )
        num_levels = cell_size.bit_length() - 1
        merging, splitting = self.embedder_channels, self.decoder_channels
        while len(merging) < num_levels:
            merging, splitting = (max(4, merging[0] // 2), *merging), (*splitting, max(4, splitting[-1] // 2))
        return self._replace(embedder_channels=merging[-num_levels:], decoder_channels=splitting[: num_levels - 1])


SIZES: dict[ModelSize, Shape] = {
    "tiny": Shape(32, (16, 48, 128), (64, 32), 3, 4, True, 3e-3),
    "small": Shape(112, (16, 48, 128, 256), (128, 64, 32), 6, 4, True, 5e-4),
    "base": Shape(224, (8, 24, 64, 192, 768), (384, 192, 96, 48), 12, 12, False, 1e-4),
    "large": Shape(384, (8, 16, 32, 48, 1024), (512, 256, 128, 64), 24, 16, False, 5e-5),
}


def learning_rate_of(width: int) -> float:
    """Peak learning rate that suits a model of this width: that of the widest size that is no wider, else of tiny."""
    fitting = [shape for shape in SIZES.values() if shape.embedder_channels[-1] <= width]
    return max(fitting or [SIZES["tiny"]], key=lambda shape: shape.embedder_channels[-1]).learning_rate


def fine_tuning_rate_of(width: int) -> float:
    """Peak learning rate to fine-tune such a model with: a third of that.

    Our choice: on val of fashion the tiny model tells 0.71 of the labels from the picture so, 0.69 with a sixth of the
    rate and half as many epochs.
    """
    return learning_rate_of(width) / 3
