"""What a confirmation says, from scores that are known."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.config.score import parse_score
from mlim_ray.pipelines.search.confirmation import arms_of, conclude
from mlim_ray.pipelines.search.results import TrialResult
from mlim_ray.pipelines.search.study import Arm, ConfirmationStudy

PROBE = parse_score("probe")
ROLES = {0: "paper", 1: "light_only", 5: "searched", 7: "searched"}
BASE = SearchRunConfig(search=SearchConfig(num_confirm_seeds=3), train=TrainConfig(learning_rate=1e-3))


def result(trial: int, role: str, score: float | None, state: str = "COMPLETE") -> TrialResult:
    return TrialResult(trial, role, state, None, 100, score, None, {}, [], {"policy": "mam"})


def confirmed(scores: dict[int, list[float | None]]) -> dict[str, object] | None:
    """The conclusion for scores by arm and seed; None is a run that failed."""
    arms = [Arm(trial, ROLES[trial], {"policy": "mam"}) for trial in scores]  # type: ignore[arg-type]
    study = ConfirmationStudy(optuna.storages.InMemoryStorage(), BASE, arms, lambda: None)
    for number, arm in enumerate([*arms] * 3):
        score = scores[arm.trial][number // len(arms)]
        assert study.begin() is not None
        if score is not None:
            study.report(number, 100, {"probe": score, "mlm": score, "recon": score})
        study.finish(number, TrialState.FAIL if score is None else TrialState.COMPLETE)
    return conclude(arms, study.seeds, study.trials(), PROBE, {})


def test_the_best_two_and_two_references_are_confirmed() -> None:
    results = [
        result(0, "paper", 0.7),
        result(1, "light_only", 0.8),
        result(2, "both_heavy", 0.5),
        result(4, "searched", 0.65),
        result(5, "searched", 0.6),
        result(6, "searched", 0.1, "PRUNED"),
        result(7, "searched", 0.62),
    ]
    assert [arm.trial for arm in arms_of(results)] == [2, 5, 0, 1]
    assert [arm.trial for arm in arms_of([result(0, "paper", 0.1), *results[1:]])] == [0, 2, 1]


def test_a_winner_must_beat_both_references_beyond_the_interval() -> None:
    found = confirmed({5: [0.50, 0.51, 0.52], 0: [0.60, 0.61, 0.62], 1: [0.70, 0.712, 0.72], 7: [0.51, 0.50, 0.53]})
    assert found is not None and found["winner"] == 5
    assert [arm["trial"] for arm in found["arms"]] == [5, 7, 0, 1]  # type: ignore[attr-defined]
    by_other = {each["against"]: each for each in found["differences"]}  # type: ignore[attr-defined]
    assert by_other[0]["is_found"] and by_other[1]["is_found"] and not by_other[7]["is_found"]
    assert by_other[0]["mean"] == pytest.approx(-0.1) and by_other[0]["interval"] == pytest.approx([-0.1, -0.1])
    assert found["seed_noise"] == pytest.approx(0.01)


def test_no_difference_is_an_answer() -> None:
    found = confirmed({5: [0.50, 0.61, 0.52], 0: [0.55, 0.56, 0.57], 1: [0.70, 0.71, 0.72]})
    assert found is not None and found["winner"] is None
    assert found["arms"][0]["trial"] == 5  # type: ignore[index]


def test_a_reference_can_win() -> None:
    found = confirmed({5: [0.60, 0.61, 0.62], 0: [0.50, 0.51, 0.52], 1: [0.70, 0.71, 0.72]})
    assert found is not None and found["winner"] == 0


def test_an_arm_with_a_failed_run_is_left_out() -> None:
    found = confirmed({5: [0.50, None, 0.52], 0: [0.60, 0.61, 0.62], 1: [0.70, 0.71, 0.72]})
    assert found is not None and [arm["trial"] for arm in found["arms"]] == [0, 1]  # type: ignore[attr-defined]
    assert confirmed({5: [0.5, None, 0.5], 0: [0.6, 0.6, 0.6]}) is None


def test_nothing_wins_that_has_beaten_nothing() -> None:
    close = {5: [0.50, 0.61, 0.52], 7: [0.55, 0.56, 0.57]}
    found = confirmed(close | {0: [0.6, None, 0.6], 1: [0.7, None, 0.7]})
    assert found is not None and [arm["trial"] for arm in found["arms"]] == [5, 7]  # type: ignore[attr-defined]
    assert found["winner"] is None
    found = confirmed({0: [0.50, 0.61, 0.52], 5: [0.55, 0.56, 0.57], 1: [0.7, None, 0.7]})
    assert found is not None and found["winner"] is None
