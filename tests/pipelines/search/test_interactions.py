"""Pairs of knobs, on objectives where two act together by construction, or each alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.config.score import parse_score
from mlim_ray.pipelines.search.interactions import knob_interactions
from mlim_ray.pipelines.search.space import Parameters
from mlim_ray.pipelines.search.study import SearchStudy

PROBE = parse_score("probe")


def found_of(objective: Callable[[Parameters], float], num_trials: int = 80) -> list[tuple[str, str, float]]:
    base = SearchRunConfig(
        search=SearchConfig(num_trials=num_trials, sampler="random"), train=TrainConfig(learning_rate=1e-3)
    )
    study = SearchStudy(optuna.storages.InMemoryStorage(), base, lambda: None)
    while (begun := study.begin()) is not None:
        study.report(begun.number, 100, {"probe": objective(begun.parameters)})
        study.finish(begun.number, TrialState.PRUNED)
    return knob_interactions(study.trials(), PROBE)


def rate(parameters: Parameters) -> float:
    """From -1 to 1 over its range."""
    return math.log(float(parameters["train.learning_rate"]) / 1e-3) / math.log(3.0)


def weight(parameters: Parameters) -> float:
    """From -1 to 1 over its range."""
    return math.log10(float(parameters["recon.weight"])) - 1.0


def test_two_that_decide_only_together_come_first() -> None:
    (first, second, share), *rest = found_of(lambda parameters: rate(parameters) * weight(parameters))
    assert {first, second} == {"train.learning_rate", "recon.weight"} and share > 0.3
    assert all(other < share / 2 for _, _, other in rest)


def test_two_that_decide_each_alone_are_no_pair() -> None:
    assert all(share < 0.1 for *_, share in found_of(lambda parameters: rate(parameters) + weight(parameters)))


def test_few_trials_and_a_score_that_nothing_decides_have_none() -> None:
    assert found_of(lambda parameters: rate(parameters) * weight(parameters), num_trials=12) == []
    assert found_of(lambda _: 1.0) == []
