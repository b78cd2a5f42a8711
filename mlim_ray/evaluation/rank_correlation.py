"""Whether two measures put the same things into the same order.

Legend: R resamplings, N things.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mlim_ray.evaluation.intervals import Estimate

_NUM_RESAMPLES = 2_000


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """Spearman's rank correlation with a 95 % interval from resampled things.

    Args:
        one: a value of each thing.
        other: another value of each.

    NaN where all values are the same; resamplings in which they are, are left out of the interval.
    """
    values = np.array([one, other], np.float64)
    drawn = np.random.default_rng(0).integers(0, values.shape[1], (_NUM_RESAMPLES, values.shape[1]))
    resampled = _spearman(values[0][drawn], values[1][drawn])
    if np.isnan(resampled).all():
        return Estimate(spearman(one, other), float("nan"), float("nan"))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(spearman(one, other), float(low), float(high))


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where all values of either are the same."""
    return float(_spearman(np.array([one], np.float64), np.array([other], np.float64))[0])


def _spearman(one_RN: NDArray[np.float64], other_RN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of mid-ranks, row by row: scipy's own takes one pair of rows at a time."""
    ranks = [rankdata(values_RN, axis=1) for values_RN in (one_RN, other_RN)]
    one, other = (of - of.mean(1, keepdims=True) for of in ranks)
    scale_R = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    with np.errstate(invalid="ignore"):
        found_R: NDArray[np.float64] = np.where(scale_R > 0.0, (one * other).sum(1) / scale_R, np.nan)
    return found_R
