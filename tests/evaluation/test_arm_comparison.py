"""What may be said of settings that ran with the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlim_ray.evaluation.arm_comparison import ArmComparison, compare_arms
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.scores import PARTNER, Score

FIGURES = st.lists(st.floats(-10.0, 10.0), min_size=3, max_size=3)


def compared(
    arms: Mapping[str, Sequence[float]], *, task: str = PARTNER, higher: bool = False, **baselines: float
) -> ArmComparison:
    scores = {arm: [[Score(task, "MLM", value, higher, baselines)] for value in of_arm] for arm, of_arm in arms.items()}
    return compare_arms(scores, range(3), 1_000)


@given(FIGURES, FIGURES)
def test_differences_are_those_of_a_paired_t_test(one: list[float], other: list[float]) -> None:
    differences = np.subtract(other, one)
    (measure,) = compared({"mam": one, "alternating": other}).measures
    found = measure.differences["alternating"]
    if np.ptp(differences) < 1e-6:
        assert found.low == pytest.approx(found.high, abs=1e-4)
        return
    expected = stats.ttest_rel(other, one).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("higher", [True, False])
def test_a_difference_beyond_the_noise_is_told_with_its_direction(higher: bool) -> None:
    arms = {"mam": [1.0, 1.1, 1.2], "low": [0.5, 0.61, 0.7], "near": [1.1, 1.0, 1.25], "high": [2.0, 2.1, 2.19]}
    comparison = compared(arms, higher=higher)
    (measure,) = comparison.measures
    better, worse = ("high", "low") if higher else ("low", "high")
    assert measure.best == better
    assert (measure.is_better(better), measure.is_better(worse), measure.is_better("near")) == (True, False, None)
    (sentence,) = comparison.verdict()
    assert sentence.startswith(f"partner probe, MLM: best on average {better} (")
    assert f"better than mam: {better} by " in sentence and f"worse than mam: {worse} by " in sentence
    assert sentence.endswith("no difference found to near")


def test_a_baseline_must_lie_outside_of_the_whole_interval() -> None:
    arms = {"mam": [0.70, 0.71, 0.72], "wide": [0.60, 0.75, 0.90]}
    (_, sentence) = compared(arms, higher=True, raw=0.66, majority=0.1).verdict()
    assert sentence == "partner probe, MLM: mam better than raw (0.660) with the whole interval"
    assert "every setting better" in compared(arms, higher=True, majority=0.1).verdict()[1]
    assert "no setting better" in compared(arms, higher=True, raw=0.99).verdict()[1]


def test_of_a_task_only_differences_are_told_and_the_rest_counted() -> None:
    def run(seed: int, better: float) -> list[Score]:
        noise = (0.0, 0.02, -0.01)[seed]
        return [
            Score("fill on shop", "colour", 0.5 + better + noise, True),
            Score("fill on shop", "size", 0.5 + noise * better, True),
            Score("fill on shop", "untrained encoder: colour", 0.1 - better + noise, True),
            Score("fill on shop", "majority: colour", 0.3, True),
        ]

    scores = {arm: [run(seed, better) for seed in range(3)] for arm, better in (("mam", 0.0), ("other", 0.2))}
    comparison = compare_arms(scores, range(3), 10)
    told, counted = comparison.verdict()
    assert told.startswith("fill on shop, colour: best on average other")
    assert counted == "fill on shop: no difference found between mam and any other setting in 1 of its 2 figures"
    means, differences = plain_result(comparison)["tables"]
    # What no training moves stands in a column of its own, and has no difference.
    assert means["rows"][-1]["without it"] == pytest.approx(0.3) and means["rows"][-1]["mam"] is None
    # An untrained encoder may differ with the embedder: it is shown, and nothing is said of it.
    figures = ["colour", "size", "untrained encoder: colour"]
    assert [row["figure"] for row in differences["rows"]] == [f"{name} (higher is better)" for name in figures]


def test_what_not_all_runs_measured_is_left_out() -> None:
    one, other = Score(PARTNER, "MLM", 1.0, False), Score(PARTNER, "RECON", 1.0, False)
    comparison = compare_arms({"mam": [[one, other], [one, other]], "own": [[one, other], [one]]}, range(2), 10)
    assert [measure.name for measure in comparison.measures] == ["MLM"]


def test_missing_runs_are_refused() -> None:
    run = [Score(PARTNER, "MLM", 1.0, False)]
    with pytest.raises(ValueError, match="own has 1 runs, expected one for each of 2 seeds"):
        compare_arms({"mam": [run, run], "own": [run]}, range(2), 10)
