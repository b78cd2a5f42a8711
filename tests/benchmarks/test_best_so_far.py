"""The arithmetic of the search benchmark, on searches whose answer is known."""

from __future__ import annotations

import math

import pytest

from benchmarks.best_so_far import Ended, best_of, interval_of, ratio_of, samples_to

RANDOM = [
    [Ended(100, 0.9), Ended(100, 0.7), Ended(100, 0.8)],
    [Ended(100, 0.9), Ended(100, 0.8), Ended(100, 0.6)],
    [Ended(100, 0.9), Ended(100, 0.95), Ended(100, 0.8)],
]


def test_all_records_count_until_the_target_is_reached() -> None:
    search = [Ended(100, None), Ended(10, None), Ended(100, 0.8), Ended(10, None), Ended(100, 0.7)]
    assert best_of(search) == 0.7
    assert samples_to(search, 0.8) == 210
    assert samples_to(search, 0.75) == 320
    assert samples_to(search, 0.5) == math.inf
    assert best_of(search[:2]) == math.inf


def test_the_target_is_the_median_of_the_other_method_s_best() -> None:
    asha = [[Ended(10, None), Ended(40, 0.7)], [Ended(60, 0.65)], [Ended(50, 0.9)]]
    found = ratio_of(asha, RANDOM)
    assert (found.target, found.samples, found.budget) == (0.7, 60, 300)
    assert found.ratio == pytest.approx(0.2)
    # 200, 300, and 300 for the seed that never got there.
    assert found.ratio_to_first == pytest.approx(0.2)
    easier = [[Ended(100, 0.7), Ended(100, 0.9), Ended(100, 0.9)], *RANDOM[:2]]
    assert ratio_of(asha, easier).ratio_to_first == pytest.approx(60 / 200)


def test_a_method_that_mostly_fails_has_no_finite_ratio() -> None:
    assert ratio_of([[Ended(10, 0.9)], [Ended(10, 0.9)], [Ended(10, 0.6)]], RANDOM).ratio == math.inf


def test_the_interval_holds_the_ratio_and_is_a_point_where_all_seeds_agree() -> None:
    same = [RANDOM[0]] * 4
    # What it takes 200 of 300 records to find.
    assert interval_of(same, same) == (200 / 300, 200 / 300)
    asha = [[Ended(40, 0.7)], [Ended(60, 0.65)], [Ended(90, 0.9), Ended(90, 0.5)]]
    low, high = interval_of(asha, RANDOM)
    assert low < ratio_of(asha, RANDOM).ratio < high
    assert interval_of(asha, RANDOM) == (low, high)
