"""Image reconstruction: the picture from the visible cells and words (MLIM).

Legend: B records, N cells, H and W pixels.
"""

from typing import Literal

from torch import Tensor

from mlim_ray.objectives.terms import LossTerms


def recon_terms(
    reconstruction_B3HW: Tensor,
    pixels_B3HW: Tensor,
    cell_hidden_BN: Tensor,
    target: Literal["whole", "masked"],
) -> LossTerms:
    """Squared error summed over channels; the targets counted are pixels.

    `whole` counts every pixel, since visible cells are compressed too and must be rebuilt (paper, as one source reads
    it); `masked` counts the pixels of hidden cells only (as another reads it).
    """
    error_BHW = (reconstruction_B3HW.float() - pixels_B3HW).square().sum(1)
    if target == "masked":
        error_BHW = error_BHW * pixels_of_cells(cell_hidden_BN, error_BHW.shape[-1])
        pixels_per_cell = error_BHW[0].numel() / cell_hidden_BN.shape[1] if len(error_BHW) else 0.0
        return LossTerms(error_BHW.sum((1, 2)), cell_hidden_BN.sum(1).float() * pixels_per_cell)
    sum_B = error_BHW.sum((1, 2))
    return LossTerms(sum_B, sum_B.new_full(sum_B.shape, error_BHW.shape[1] * error_BHW.shape[2]))


def pixels_of_cells(cell_BN: Tensor, image_size: int) -> Tensor:
    """A value of each cell, in row-major order, spread over the cell's pixels: [B, N] -> [B, H, W]."""
    side = round(cell_BN.shape[1] ** 0.5)
    cell_size = image_size // side
    return cell_BN.unflatten(1, (side, side)).repeat_interleave(cell_size, 1).repeat_interleave(cell_size, 2)
