"""Independent masking: one fixed ratio for each modality (ViLT, VL-BERT and most of the field)."""

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import IndependentConfig
from mlim_ray.masking.policy import Ratios

MODES = ("independent",)


def independent_ratios(config: IndependentConfig, uniform_B: NDArray[np.float64]) -> Ratios:
    """The same two ratios for every record."""
    num_records = len(uniform_B)
    return Ratios(
        np.zeros(num_records, np.int8),
        np.full(num_records, config.image_ratio),
        np.full(num_records, config.text_ratio),
    )
