"""Which knobs decided: importance by PED-ANOVA over all trials, judged where every one of them has a score."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from mlim_ray.config.score import Objective, rank_score
from mlim_ray.pipelines.search.study import rungs_of

_FEWEST_TRIALS = 8
"""PED-ANOVA compares the best tenth or so with the rest; of fewer trials it says nothing."""


def knob_importance(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> dict[str, Any] | None:
    """Shares of the knobs in what parts good trials from others; None where too few trials allow to say so.

    Trials that were stopped early have no final score, and those that were not stopped are a chosen few; so all are
    compared at the first rung. What belongs to a policy is judged among the trials of that policy, and its shares are
    scaled to what the policies' trials make of all. Gives `evaluator`, `measured_on` in words, and `values`.
    """
    scored = [trial for trial in trials if trial.params and rungs_of(trial)]
    if len(scored) < _FEWEST_TRIALS:
        return None
    first = min(min(rungs_of(trial)) for trial in scored)
    values = _importances(scored, objectives)
    for policy in sorted({str(trial.params["policy"]) for trial in scored if "policy" in trial.params}):
        own = [trial for trial in scored if trial.params["policy"] == policy]
        if len(own) >= _FEWEST_TRIALS:
            found = _importances(own, objectives)
            share = len(own) / len(scored)
            values |= {name: share * value for name, value in found.items() if name.startswith(f"{policy}.")}
    total = math.fsum(values.values())
    if total <= 0.0:
        return None
    ranked = sorted(values.items(), key=lambda item: -item[1])
    return {
        "evaluator": "PED-ANOVA",
        "measured_on": f"score at the first rung ({first:,} samples) of {len(scored)} trials",
        "values": {name: value / total for name, value in ranked},
    }


def _importances(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> dict[str, float]:
    """Of the parameters that all of the trials have."""
    study = optuna.create_study()
    shared = set.intersection(*(set(trial.params) for trial in trials))
    for trial in trials:
        rungs = rungs_of(trial)
        score = rank_score(objectives, rungs[min(rungs)])
        if math.isfinite(score):
            study.add_trial(
                create_trial(
                    params={name: trial.params[name] for name in shared},
                    distributions={name: trial.distributions[name] for name in shared},
                    value=score,
                )
            )
    with warnings.catch_warnings():
        # Optuna calls PED-ANOVA experimental.
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), normalize=False)
