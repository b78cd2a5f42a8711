"""What tiny, small, base and large mean.

`large` follows the paper as far as it is known (384 px, BERT-large, embedder about 200 K and decoder about 2.8 M
parameters); its 12x12 grid and channel widths, and the three smaller sizes, are our choice.
"""

from typing import NamedTuple

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


SIZES: dict[ModelSize, Shape] = {
    "tiny": Shape(32, (16, 48, 128), (64, 32), 3, 4, True, 3e-3),
    "small": Shape(112, (16, 48, 128, 256), (128, 64, 32), 6, 4, True, 5e-4),
    "base": Shape(224, (8, 24, 64, 192, 768), (384, 192, 96, 48), 12, 12, False, 1e-4),
    "large": Shape(384, (8, 16, 32, 48, 1024), (512, 256, 128, 64), 24, 16, False, 5e-5),
}
