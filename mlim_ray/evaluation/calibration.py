"""How far a confidence can be trusted, and the one number that mends it.

Legend: R records, K classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

NUM_BINS = 15
"""of equal width in [0, 1], the usual number (Guo et al. 2017, On Calibration of Modern Neural Networks)"""
_LOG_TEMPERATURES = (-4.0, 4.0)

Floats = NDArray[np.float64]


def expected_calibration_error(confidence_R: Floats, is_right_R: NDArray[np.bool_], num_bins: int = NUM_BINS) -> float:
    """The mean distance between confidence and accuracy over bins of confidence, weighted by their records (ECE).

    Args:
        confidence_R: probability of the predicted class.
        is_right_R: whether it is the true one.
        num_bins: of equal width; a bin holds its upper end.
    """
    bin_R = np.clip(np.ceil(confidence_R * num_bins).astype(int) - 1, 0, num_bins - 1)
    difference = np.bincount(bin_R, confidence_R - is_right_R, num_bins)
    return float(np.abs(difference).sum() / len(confidence_R))


def fit_temperature(logits_RK: Floats, class_R: NDArray[np.int64]) -> float:
    """The number that logits are divided by for the best likelihood of the true classes; 1 where there are no records.

    Args:
        logits_RK: of a classifier, on records that it was not trained on.
        class_R: the true classes; -1 for one that the classifier does not know, which is left out.
    """
    known = class_R >= 0
    logits_RK, class_R = logits_RK[known], class_R[known]
    if len(class_R) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        log_probability_RK = log_softmax(logits_RK / np.exp(log_temperature), axis=1)
        return -float(log_probability_RK[np.arange(len(class_R)), class_R].mean())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def probabilities(logits_RK: Floats, temperature: float) -> Floats:
    """Calibrated probabilities [R, K]."""
    out: Floats = softmax(logits_RK / temperature, axis=1)
    return out
