"""Whether two measures put the same things into the same order."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

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
    rng = np.random.default_rng(0)
    drawn = (values[:, rng.integers(0, values.shape[1], values.shape[1])] for _ in range(_NUM_RESAMPLES))
    resampled = np.array([spearman(*each.tolist()) for each in drawn])
    if np.isnan(resampled).all():
        return Estimate(spearman(one, other), float("nan"), float("nan"))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(spearman(one, other), float(low), float(high))


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where all values of either are the same."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return float("nan")
    return float(spearmanr(one, other).statistic)
