"""Intervals of figures over held-out records, by resampling the records (contract C10)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlim_ray.evaluation.intervals import CONFIDENCE, Estimate

NUM_DRAWS = 1_000


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], num_examples: int, *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> Estimate:
    """A statistic of all examples with its 95 % percentile interval over resampled examples.

    Args:
        statistic: of the examples with these indices, which may repeat; NaN where it is not defined, and such draws
            are left out.
        num_examples: how many there are, at least one.
        seed: of the draws.
        num_draws: how often the examples are drawn anew.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, num_examples, num_examples)) for _ in range(num_draws)])
    tails = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(values, [tails, 100 - tails])
    return Estimate(float(statistic(np.arange(num_examples))), float(low), float(high))


def bootstrap_within(
    statistic: Callable[[NDArray[np.int64]], float],
    strata: NDArray[np.int64],
    *,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> Estimate:
    """As `bootstrap`, each stratum resampled by itself, so that none grows, shrinks or goes missing.

    For means over strata, which draws of all examples would bias: rare strata would be absent from many of them.

    Args:
        statistic: of the examples with these indices, which may repeat.
        strata: the stratum of each example.
        seed: of the draws.
        num_draws: how often the examples are drawn anew.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(strata, kind="stable")
    _, first, counts = np.unique(strata[order], return_index=True, return_counts=True)
    start, size = np.repeat(first, counts), np.repeat(counts, counts)
    values = [statistic(order[start + (rng.random(len(order)) * size).astype(np.int64)]) for _ in range(num_draws)]
    tails = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tails, 100 - tails])
    return Estimate(float(statistic(np.arange(len(order)))), float(low), float(high))


def bootstrap_mean(values: NDArray[np.float64], *, seed: int = 0, num_draws: int = NUM_DRAWS) -> Estimate:
    """The mean of values with its interval, as `bootstrap` gives it, sooner."""
    rng = np.random.default_rng(seed)
    means = [float(values[rng.integers(0, len(values), len(values))].mean()) for _ in range(num_draws)]
    tails = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tails, 100 - tails])
    return Estimate(float(values.mean()), float(low), float(high))
