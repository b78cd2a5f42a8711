"""What a masking policy decides for each record: a mode, and a ratio for each modality."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ratios(NamedTuple):
    """A policy's decision for B records."""

    mode_B: NDArray[np.int8]
    """index into the policy's MODES"""
    cell_ratio_B: NDArray[np.float64]
    """share of image cells to hide"""
    word_ratio_B: NDArray[np.float64]
    """share of words to hide"""
