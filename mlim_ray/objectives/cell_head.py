"""Image targets that are no pixels of the decoder: so many numbers for each cell, told by a head from its state.

Legend: B records, N cells, D width, F numbers of a cell, H and W pixels.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.terms import LossTerms


class CellTargets(Objective):
    """Squared error of F numbers a cell, divided by `scale`; the targets counted are cells.

    The head is a layer, a GELU and a layer (our choice; MAE and FastMIM have a small transformer there).
    """

    def __init__(
        self, shape: MlimConfig, weight: float, target: Literal["whole", "masked"], num_features: int, scale: float
    ) -> None:
        super().__init__("recon", weight)
        width = shape.hidden_size
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_features))
        self._target = target
        self._scale = scale

    def targets(self, model: MlimModel, inputs: BatchTensors) -> Tensor:
        """What is to be told [B, N, F], without gradient."""
        raise NotImplementedError

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Cells, or hidden cells."""
        return cell_hidden_BN.size if self._target == "whole" else int(cell_hidden_BN.sum())

    def forward(self, passed: Pass) -> LossTerms:
        """Of the cells of each record."""
        targets_BNF = self.targets(passed.model, passed.inputs)
        return self.errors(passed.states.cells_BND, targets_BNF, passed.inputs.cell_hidden_BN)

    def errors(self, cells_BND: Tensor, targets_BNF: Tensor, cell_hidden_BN: Tensor) -> LossTerms:
        """Of what the states tell, against the targets."""
        error_BN = self.error_by_cell(cells_BND, targets_BNF)
        counts_BN = cell_hidden_BN if self._target == "masked" else cell_hidden_BN.new_ones(cell_hidden_BN.shape)
        return LossTerms((error_BN * counts_BN).sum(1), counts_BN.sum(1).float())

    def error_by_cell(self, cells_BND: Tensor, targets_BNF: Tensor) -> Tensor:
        """The error [B, N] of what the states tell."""
        told_BNF: Tensor = self.head(cells_BND)
        return (told_BNF.float() - targets_BNF).square().sum(2) / self._scale


def pixels_by_cell(pixels_B3HW: Tensor, cell_size: int) -> Tensor:
    """The values of each cell, [B, 3, H, W] -> [B, N, 3, cell_size, cell_size], cells in row-major order."""
    cells = pixels_B3HW.unfold(2, cell_size, cell_size).unfold(3, cell_size, cell_size)
    return cells.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
