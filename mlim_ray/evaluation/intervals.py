"""Means of few seeds with their 95 % intervals (contract C10).

With three seeds an interval is wide, as it should be: Student's t has two degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with the interval that holds the true one in 95 of 100 cases, if values are normally distributed."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.low > 0.0 or self.high < 0.0


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of at least two values.

    Raises:
        ValueError: there are fewer.
    """
    if len(values) < 2:
        raise ValueError(f"given {len(values)} values, expected two or more for an interval")
    mean = float(np.mean(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half)


def difference_of(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Mean of `values` less that of `others`, paired: the n-th of both had the same seed, so one start and order."""
    return mean_of([value - other for value, other in zip(values, others, strict=True)])
