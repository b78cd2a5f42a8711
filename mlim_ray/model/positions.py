"""Position embeddings of pictures with fewer cells than the model's own.

Legend: N cells of the full grid, n those of a smaller one, F and M cells in a row of either, D width.
"""

import math

import torch
from torch import Tensor

from mlim_ray.data.shrinking import overlaps


def positions_on(num_cells: int, positions_ND: Tensor) -> Tensor:
    """The positions [n, D] of a grid of so many cells: of the full one the positions themselves, of a smaller one the
    means over the area that each cell covers there, as its pixels are (our choice; FastMIM's is not known).

    Every position has a part in them and learns.
    """
    if num_cells == len(positions_ND):
        return positions_ND
    full, side = math.isqrt(len(positions_ND)), math.isqrt(num_cells)
    share_FM = torch.from_numpy(overlaps(full, side)).to(positions_ND) / full
    # Positions are added in full precision at any size.
    with torch.autocast(positions_ND.device.type, enabled=False):
        rows_FMD = torch.tensordot(share_FM, positions_ND.unflatten(0, (full, full)), 1)
        return (share_FM @ rows_FMD).flatten(0, 1)
