"""Image reconstruction: the picture from the visible cells and words (MLIM).

Legend: B records, N cells, H and W pixels.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.config import ReconConfig
from mlim_ray.model import MlimConfig
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.terms import LossTerms


def recon_terms(
    reconstruction_B3HW: Tensor,
    pixels_B3HW: Tensor,
    cell_hidden_BN: Tensor,
    target: Literal["whole", "masked"],
    error: Literal["squared", "absolute"] = "squared",
) -> LossTerms:
    """Squared (or absolute) error summed over channels; the targets counted are pixels.

    `whole` counts every pixel, since visible cells are compressed too and must be rebuilt (paper, as one source reads
    it); `masked` counts the pixels of hidden cells only (as another reads it).
    """
    difference_B3HW = reconstruction_B3HW.float() - pixels_B3HW
    error_BHW = (difference_B3HW.square() if error == "squared" else difference_B3HW.abs()).sum(1)
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


class Recon(Objective):
    """RECON by the model's own decoder."""

    def __init__(self, config: ReconConfig, shape: MlimConfig, name: str = "recon") -> None:
        super().__init__(name, config.weight)
        self._config = config
        self._shape = shape

    @property
    def is_detached(self) -> bool:
        """Whether the encoder learns nothing from it."""
        return self._config.detached

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Pixels of the pictures, or of the hidden cells."""
        num_cells = cell_hidden_BN.size if self._config.target == "whole" else int(cell_hidden_BN.sum())
        return num_cells * self._shape.cell_size**2

    def forward(self, passed: Pass) -> LossTerms:
        """Of the pixels of each record."""
        inputs, cells_BND = passed.inputs, passed.states.cells_BND
        reconstruction_B3HW = passed.model.reconstruct(cells_BND.detach() if self.is_detached else cells_BND)
        return recon_terms(
            reconstruction_B3HW, inputs.pixels_B3HW, inputs.cell_hidden_BN, self._config.target, self._config.error
        )
