"""Histograms of oriented gradients as the image target (after FastMIM).

Source: Dalal and Triggs 2005 as scikit-image computes it, for each colour alone as FastMIM does: 9 bins of 8x8 pixels.
Open: FastMIM's block normalisation is optional there; here each histogram has length 1 (our choice). Its targets are
for 16-pixel patches and told by a small transformer; here for the model's cells, told by a head of two layers.

Legend: B records, N cells, F numbers of a cell, K squares in a row of a cell, O orientations, H and W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mlim_ray.config import HogReconConfig
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.objectives.cell_head import CellTargets, pixels_by_cell
from mlim_ray.objectives.inputs import BatchTensors

_ADDED = 1e-5


class Hog(CellTargets):
    """Squared error of histograms of length 1, averaged over the histograms of a cell.

    Raises:
        ValueError: the squares do not divide the model's cells.
    """

    def __init__(self, config: HogReconConfig, shape: MlimConfig) -> None:
        if shape.cell_size % config.pixels:
            raise ValueError(
                f"--recon.pixels {config.pixels} does not divide the model's cells of {shape.cell_size} pixels; use "
                f"--recon.pixels {math.gcd(config.pixels, shape.cell_size)}"
            )
        num_histograms = 3 * (shape.cell_size // config.pixels) ** 2
        super().__init__(shape, config.weight, config.target, num_histograms * config.orientations, num_histograms)
        self._config = config
        self._cell_size = shape.cell_size

    @torch.no_grad()
    def targets(self, model: MlimModel, inputs: BatchTensors) -> Tensor:
        """The histograms of each cell [B, N, F]: colours, then squares in row-major order, then orientations."""
        pixels, num_bins = self._config.pixels, self._config.orientations
        histograms_BC3HW = histograms(inputs.pixels_B3HW, num_bins, pixels)
        side = self._cell_size // pixels
        by_bin = [pixels_by_cell(histograms_BC3HW[:, index], side) for index in range(num_bins)]
        return torch.stack(by_bin, -1).flatten(2)


def histograms(pixels_B3HW: Tensor, num_bins: int, pixels: int) -> Tensor:
    """Histograms [B, O, 3, H / pixels, W / pixels] of gradient directions without sign, each of length 1.

    As `skimage.feature.hog` with `cells_per_block=(1, 1)` and `block_norm="L2"`, of each colour alone: central
    differences, none across the border; each pixel adds its gradient's length to one bin.
    """
    image = pixels_B3HW.double()
    rows, columns = torch.zeros_like(image), torch.zeros_like(image)
    rows[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    columns[..., 1:-1] = image[..., 2:] - image[..., :-2]
    length = torch.hypot(rows, columns)
    angle = torch.rad2deg(torch.atan2(rows, columns)) % 180.0
    # A direction just below 0 may be rounded up to 180, which is that of 0.
    bins = (angle * num_bins / 180.0).long() % num_bins
    by_bin = F.one_hot(bins, num_bins).to(image) * length[..., None]
    sums = F.avg_pool2d(by_bin.permute(0, 4, 1, 2, 3).flatten(1, 2), pixels)
    histograms_BO3HW = sums.unflatten(1, (num_bins, 3))
    norm = (histograms_BO3HW.square().sum(1, keepdim=True) + _ADDED**2).sqrt()
    return (histograms_BO3HW / norm).float()
