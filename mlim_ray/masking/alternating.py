"""Alternating masking: one modality hidden heavily, the other whole (as M3AE-medical and MaskVLM do)."""

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import AlternatingConfig
from mlim_ray.masking.policy import Ratios

MODES = ("image_heavy", "text_heavy")


def alternating_ratios(config: AlternatingConfig, uniform_B: NDArray[np.float64]) -> Ratios:
    """The mode of each record and its two ratios; `uniform_B` in [0, 1) decides the mode."""
    mode_B = (uniform_B >= config.image_heavy_probability).astype(np.int8)
    cell_ratio = np.array([config.image_heavy_ratio, 0.0])
    word_ratio = np.array([0.0, config.text_heavy_ratio])
    return Ratios(mode_B, cell_ratio[mode_B], word_ratio[mode_B])
