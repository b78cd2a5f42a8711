"""Floating point operations of the embedders (see `flops.py`, whose legend this is).

    shallow CNN      2 * V * sum over l of 4^(k-l) * (4 * C_(l-1)) * C_l                      C_0 = 3, C_k = D
    linear patches   2 * V * 3 * X * D                                                        X pixels of a cell
    deep CNN         2 * B * sum over l of (N * X / 4^l) * (10 * C_(l-1) * C_l + (18 * b - 9) * C_l^2)     b blocks

The deep CNN computes whole pictures, hidden cells too. Its shortcuts without a convolution cost nothing: they are there
for all blocks but a level's first.
"""

from itertools import pairwise
from typing import NamedTuple

from mlim_ray.model.configuration import MlimConfig


class EmbedderFlops(NamedTuple):
    """Of a forward pass."""

    total: float
    first: float
    """its share on the pixels themselves, which need no gradient"""


def embedder_flops(shape: MlimConfig, num_cells: float, num_visible_cells: float) -> EmbedderFlops:
    """Operations of embedding the visible ones of all cells of some pictures."""
    levels = list(enumerate(pairwise((3, *shape.embedder_channels)), 1))
    match shape.embedder_kind:
        case "shallow_cnn":
            merging = [
                2 * num_visible_cells * 4 ** (len(levels) - level) * 4 * num_in * num_out
                for level, (num_in, num_out) in levels
            ]
            return EmbedderFlops(sum(merging), merging[0])
        case "linear_patches":
            product = 2 * num_visible_cells * 3 * shape.cell_size**2 * shape.hidden_size
            return EmbedderFlops(product, product)
        case "deep_cnn":
            num_pixels = [num_cells * (shape.cell_size >> level) ** 2 for level, _ in levels]
            entering = [2 * x * 10 * a * b for x, (_, (a, b)) in zip(num_pixels, levels, strict=True)]
            inner = [
                2 * x * (18 * shape.embedder_blocks - 9) * b**2
                for x, (_, (_, b)) in zip(num_pixels, levels, strict=True)
            ]
            return EmbedderFlops(sum(entering) + sum(inner), entering[0])
