"""The best trials and two references once more, with fresh seeds: what a search may claim (contract C10)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config.score import Objective, rank_score
from mlim_ray.evaluation.evaluation import Evaluation
from mlim_ray.evaluation.intervals import Estimate, difference_of, mean_of
from mlim_ray.pipelines.search.results import TrialResult, ranked
from mlim_ray.pipelines.search.study import Arm, arm_of, rungs_of, seed_of

AGAINST = ("paper", "light_only")
"""Roles that the best are compared with."""
_NUM_BEST = 2


def arms_of(results: Sequence[TrialResult]) -> list[Arm]:
    """What is run again: the best trials, then the references that they must beat."""
    whole = ranked(results)
    best = whole[:_NUM_BEST]
    references = [result for role in AGAINST for result in whole if result.role == role and result not in best]
    return [Arm(result.trial, result.role, dict(result.params)) for result in [*best, *references]]  # type: ignore[arg-type]


def conclude(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    trials: Sequence[FrozenTrial],
    objectives: Sequence[Objective],
    evaluations: Mapping[int, Evaluation],
) -> dict[str, Any] | None:
    """The scores of every arm with their intervals, and what the differences show; None where too few came to an end.

    Args:
        arms: what was run again.
        seeds: the fresh ones.
        trials: of the confirmation.
        objectives: of the search.
        evaluations: of the confirmation's trials, by number.

    Gives `seeds`, `arms` (best first, each with its scores in the order of the seeds), `differences` (the leading arm
    less every other one, paired by seed), `seed_noise` (standard deviation of the paper's arm over seeds) and `winner`:
    the leading arm's trial if its score is lower than every reference's beyond the interval (than every other arm's,
    where no reference is left to beat), None if that cannot be said.
    """
    by_run = {(arm_of(trial), seed_of(trial)): trial for trial in trials if trial.state == TrialState.COMPLETE}
    whole = [arm for arm in arms if all((arm.trial, seed) in by_run for seed in seeds)]
    if len(whole) < 2 or len(seeds) < 2:
        return None
    rows = []
    for arm in whole:
        runs = [by_run[arm.trial, seed] for seed in seeds]
        scores = [_score(run, objectives) for run in runs]
        rows.append(
            {
                "trial": arm.trial,
                "role": arm.role,
                "params": arm.parameters,
                "scores": scores,
                **_interval(mean_of(scores)),
                **_accuracies([evaluations.get(run.number) for run in runs]),
            }
        )
    rows.sort(key=lambda row: row["mean"])
    leader, others = rows[0], rows[1:]
    differences = []
    for other in others:
        estimate = difference_of(leader["scores"], other["scores"])
        differences.append(
            {
                "trial": leader["trial"],
                "against": other["trial"],
                **_interval(estimate),
                "is_found": estimate.excludes_zero,
            }
        )
    references = {row["trial"] for row in rows if row["role"] in AGAINST} - {leader["trial"]}
    # Where no reference came to its end, a winner is one that beats all others.
    rivals = references or {row["trial"] for row in others}
    beaten = {each["against"] for each in differences if each["is_found"]}
    paper = next((row["scores"] for row in rows if row["role"] == "paper"), None)
    return {
        "seeds": list(seeds),
        "arms": rows,
        "differences": differences,
        "seed_noise": None if paper is None else float(np.std(paper, ddof=1)),
        "winner": leader["trial"] if rivals <= beaten else None,
    }


def _score(trial: FrozenTrial, objectives: Sequence[Objective]) -> float:
    rungs = rungs_of(trial)
    return rank_score(objectives, rungs[max(rungs)])


def _interval(estimate: Estimate) -> dict[str, Any]:
    assert math.isfinite(estimate.mean), "trials without a finite score are not complete"
    return {"mean": estimate.mean, "interval": [estimate.low, estimate.high]}


def _accuracies(evaluations: Sequence[Evaluation | None]) -> dict[str, Any]:
    """Of the linear probe, which masks nothing, for each seed."""
    probes = [None if evaluation is None else evaluation["linear_probe"] for evaluation in evaluations]
    known = [probe for probe in probes if probe is not None]
    if len(known) < len(probes):
        return {"linear_picture": None, "linear_with_title": None}
    return {
        "linear_picture": [probe["picture_only"] for probe in known],
        "linear_with_title": [probe["with_title"] for probe in known],
    }
