"""Pixels normalised cell by cell (MAE; M3AE-medical): contrast within a cell, not its colour.

Source: He et al. 2021 and its code: mean and unbiased variance over all values of a patch, 1e-6 added to the variance.
Open: the cell is the model's own, of whatever size; MAE's is 16 pixels.

Legend: B records, N cells, F values of a cell.
"""

import torch
from torch import Tensor

from mlim_ray.config import NormalisedReconConfig
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.objectives.cell_head import CellTargets, pixels_by_cell
from mlim_ray.objectives.inputs import BatchTensors

_ADDED = 1e-6


class Normalised(CellTargets):
    """Mean squared error of a cell's normalised values."""

    def __init__(self, config: NormalisedReconConfig, shape: MlimConfig) -> None:
        num_values = 3 * shape.cell_size**2
        super().__init__(shape, config.weight, config.target, num_values, num_values)
        self._cell_size = shape.cell_size

    @torch.no_grad()
    def targets(self, model: MlimModel, inputs: BatchTensors) -> Tensor:
        """Normalised values [B, N, F]."""
        values_BNF = pixels_by_cell(inputs.pixels_B3HW, self._cell_size).flatten(2)
        variance_BN1, mean_BN1 = torch.var_mean(values_BNF, 2, keepdim=True)
        return (values_BNF - mean_BN1) / (variance_BN1 + _ADDED).sqrt()
