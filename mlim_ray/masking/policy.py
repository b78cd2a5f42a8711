"""What a masking policy decides for each record: a mode, and a ratio for each modality."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import BlockwiseConfig, TextAttentiveConfig


class Ratios(NamedTuple):
    """A policy's decision for B records."""

    mode_B: NDArray[np.int8]
    """index into the policy's MODES"""
    cell_ratio_B: NDArray[np.float64]
    """share of image cells to hide"""
    word_ratio_B: NDArray[np.float64]
    """share of words to hide"""


SIDED_MODES = ("image_only", "text_only", "both")


def sided_ratios(config: BlockwiseConfig | TextAttentiveConfig, uniform_B: NDArray[np.float64]) -> Ratios:
    """The mode of each record and its two ratios, where one side alone or both are hidden; `uniform_B` in [0, 1)
    decides the mode."""
    image_only, text_only = config.image_only_probability, config.text_only_probability
    mode_B = (uniform_B >= image_only).astype(np.int8)
    # 1 - p - p is not always the exact complement: without a third mode, rounding must not invent one.
    if image_only + text_only < 1.0 - 1e-9:
        mode_B += uniform_B >= image_only + text_only
    cell_ratio = np.array([config.image_ratio, 0.0, config.image_ratio])
    word_ratio = np.array([0.0, config.text_ratio, config.text_ratio])
    return Ratios(mode_B, cell_ratio[mode_B], word_ratio[mode_B])
