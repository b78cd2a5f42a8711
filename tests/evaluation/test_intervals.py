"""Intervals of few seeds: what they cover, and what a difference says."""

import numpy as np
import pytest

from mlim_ray.evaluation.intervals import difference_of, mean_of


def test_the_interval_is_students_t() -> None:
    # 1, 2, 3: mean 2, standard error 1/sqrt(3), t of two degrees of freedom 4.3027.
    found = mean_of([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - 2.4841, 2.0 + 2.4841), abs=1e-3)
    assert not found.excludes_zero and mean_of([1.0, 1.1, 1.2]).excludes_zero


def test_nineteen_of_twenty_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    holds = [found.low < 5.0 < found.high for found in (mean_of(rng.normal(5.0, 2.0, 3)) for _ in range(2_000))]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.015)


def test_a_difference_is_paired_by_seed() -> None:
    seeds = np.random.default_rng(0).normal(0.0, 1.0, 3)
    found = difference_of(list(seeds + 0.1), list(seeds))
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1)) and found.excludes_zero
    with pytest.raises(ValueError, match="shorter|longer|argument"):
        difference_of([1.0, 2.0], [1.0])


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two or more"):
        mean_of([1.0])
