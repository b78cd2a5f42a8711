"""Rank correlations, and whether the order of settings carries over to a larger model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.rank_correlation import rank_correlation, spearman
from mlim_ray.evaluation.scores import PARTNER, Score
from mlim_ray.evaluation.transfer import Transfer, transfer


@given(st.lists(st.integers(0, 9), min_size=3, max_size=12).filter(lambda values: len(set(values)) > 1), st.integers())
def test_spearman_is_scipys(values: list[int], seed: int) -> None:
    others = np.random.default_rng(abs(seed)).permutation(len(values)).tolist()

    assert spearman(values, others) == pytest.approx(stats.spearmanr(values, others).statistic)


@settings(max_examples=5)
@given(st.permutations(range(9)))
def test_the_interval_holds_the_correlation(order: list[int]) -> None:
    found = rank_correlation(range(9), order)
    assert -1.0 <= found.low <= found.mean <= found.high <= 1.0


def test_the_same_order_and_none() -> None:
    found = rank_correlation([1, 2, 3, 5, 8], [10, 20, 30, 50, 80])
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert all(map(math.isnan, vars(rank_correlation([1, 1, 1], [1, 2, 3])).values()))


def carried(larger: Sequence[float], *, higher: bool = False) -> Transfer:
    def runs(value: float) -> list[list[Score]]:
        return [[Score(PARTNER, "MLM", value + seed / 100, higher), Score("x", "raw", 0.5, True)] for seed in range(2)]

    smaller = range(len(larger))
    scores = {
        "tiny": {f"arm{i}": runs(float(value)) for i, value in enumerate(smaller)},
        "small": {f"arm{i}": runs(value) for i, value in enumerate(larger)},
    }
    return transfer(scores, range(2), 1_000)


def test_an_order_that_carries_over() -> None:
    found = carried([0.0, 1.0, 2.0, 3.0, 5.0, 4.0, 6.0, 7.0, 8.0])
    # What no training moves has no order.
    (measure,) = found.measures
    assert measure.correlation.mean == pytest.approx(0.98, abs=0.01) and measure.correlation.low > 0.0
    assert (measure.best, measure.regret_rank) == ({"tiny": "arm0", "small": "arm0"}, 1)
    assert measure.of_seeds == {"tiny": pytest.approx(1.0), "small": pytest.approx(1.0)}
    (sentence,) = found.verdict()
    assert "what tiny ranks high, small does too" in sentence and "arm0, has place 1 of 9 in small" in sentence
    means = plain_result(found)["tables"][1]["rows"]
    assert means[0] == {
        "setting": "arm0",
        "partner probe, MLM, tiny": pytest.approx(0.005),
        "partner probe, MLM, small": pytest.approx(0.005),
    }


def test_an_order_that_does_not() -> None:
    (sentence,) = carried([3.0, 7.0, 1.0, 8.0, 4.0, 0.0, 5.0, 2.0, 6.0]).verdict()
    assert "no agreement found" in sentence and "arm0, has place 4 of 9" in sentence
    (sentence,) = carried([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], higher=True).verdict()
    assert "reverse order" in sentence and "arm8, has place 9 of 9" in sentence
