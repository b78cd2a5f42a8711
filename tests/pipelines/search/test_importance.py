"""Importance of knobs, on objectives whose knobs matter by construction."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.config.score import parse_score
from mlim_ray.pipelines.search.importance import knob_importance
from mlim_ray.pipelines.search.space import Parameters
from mlim_ray.pipelines.search.study import SearchStudy

PROBE = parse_score("probe")


def searched(objective: Callable[[Parameters], float], *space: str, num_trials: int = 60) -> SearchStudy:
    base = SearchRunConfig(
        search=SearchConfig(num_trials=num_trials, sampler="random", space=space),
        train=TrainConfig(learning_rate=1e-3),
    )
    study = SearchStudy(optuna.storages.InMemoryStorage(), base, lambda: None)
    while (begun := study.begin()) is not None:
        study.report(begun.number, 100, {"probe": objective(begun.parameters)})
        study.finish(begun.number, TrialState.PRUNED)
    return study


def test_the_knob_that_decides_comes_first() -> None:
    study = searched(lambda parameters: (float(parameters.get("mam.image_heavy_ratio", 0.8)) - 0.7) ** 2, "policy=mam")
    found = knob_importance(study.trials(), PROBE)
    assert found is not None
    values = found["values"]
    assert next(iter(values)) == "mam.image_heavy_ratio" and values["mam.image_heavy_ratio"] > 0.5
    assert abs(sum(values.values()) - 1.0) < 1e-9
    assert "58 trials" in found["measured_on"] and "100 samples" in found["measured_on"]


def test_the_policy_itself_can_decide() -> None:
    study = searched(lambda parameters: float(parameters["policy"] != "alternating") + 0.01)
    found = knob_importance(study.trials(), PROBE)
    assert found is not None and next(iter(found["values"])) == "policy"


def test_few_trials_say_nothing() -> None:
    assert knob_importance(searched(lambda _: 1.0, num_trials=5).trials(), PROBE) is None
