"""Modality Aware Masking (MLIM, section on MAM): heavy image, heavy text, or light on both."""

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import MamConfig
from mlim_ray.masking.policy import Ratios

MODES = ("image_heavy", "text_heavy", "light")


def mam_ratios(config: MamConfig, uniform_B: NDArray[np.float64]) -> Ratios:
    """The mode of each record and its two ratios; `uniform_B` in [0, 1) decides the mode."""
    image_heavy = config.image_heavy_probability
    text_heavy = config.text_heavy_probability
    mode_B = (uniform_B >= image_heavy).astype(np.int8)
    # 1 - p - p is not always the exact complement: without a light mode, rounding must not invent one.
    if image_heavy + text_heavy < 1.0 - 1e-9:
        mode_B += uniform_B >= image_heavy + text_heavy
    cell_ratio = np.array([config.image_heavy_ratio, config.text_heavy_image_ratio, config.image_light_ratio])
    word_ratio = np.array([config.image_heavy_text_ratio, config.text_heavy_ratio, config.text_light_ratio])
    return Ratios(mode_B, cell_ratio[mode_B], word_ratio[mode_B])
