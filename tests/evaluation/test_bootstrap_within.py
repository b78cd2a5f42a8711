"""Resampling within strata."""

from __future__ import annotations

import numpy as np

from mlim_ray.evaluation.bootstrap import bootstrap_mean, bootstrap_within


def test_each_draw_has_as_many_of_each_stratum() -> None:
    strata = np.array([2, 0, 2, 1, 2, 0])
    drawn: list[np.ndarray] = []

    def statistic(index: np.ndarray) -> float:
        drawn.append(index)
        return float(index.sum())

    estimate = bootstrap_within(statistic, strata, num_draws=300)
    assert estimate.mean == 15.0
    assert all(np.bincount(strata[index]).tolist() == [2, 1, 3] for index in drawn)
    assert {int(i) for index in drawn for i in index} == set(range(6))
    assert any(len(set(index.tolist())) < 6 for index in drawn)


def test_with_one_stratum_it_is_the_usual_interval() -> None:
    values = np.random.default_rng(1).normal(size=400)
    one = bootstrap_within(lambda index: float(values[index].mean()), np.zeros(400, int), num_draws=4_000)
    usual = bootstrap_mean(values, num_draws=4_000)
    np.testing.assert_allclose((one.mean, one.low, one.high), (usual.mean, usual.low, usual.high), atol=0.01)
