"""Which knobs act together: what two of them explain of the score only as a pair.

PED-ANOVA judges each knob alone. A forest is fitted to all trials, and of its partial dependence on two knobs what
either explains alone is taken away (Friedman and Popescu, 2008, "Predictive learning via rule ensembles"); the variance
that is left, over that of the forest's predictions, is the pair's share.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from mlim_ray.config.score import Objective, rank_score
from mlim_ray.pipelines.search.study import rungs_of

_FEWEST_TRIALS = 16
_MOST_PAIRS = 5
_LEAST_SHARE = 0.01
_NUM_TREES, _LEAST_LEAF = 64, 2
_GRID, _MOST_OTHERS = 8, 48
"""values of a knob that are looked at, and trials that the other knobs are averaged over"""


def knob_interactions(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[tuple[str, str, float]]:
    """Pairs of the knobs that all trials have, with their shares, the strongest first; none of too few trials.

    As the importance of single knobs, it is judged at the first rung, where every trial has a score.
    """
    scored = []
    for trial in trials:
        rungs = rungs_of(trial)
        if trial.params and rungs and math.isfinite(score := rank_score(objectives, rungs[min(rungs)])):
            scored.append((trial, score))
    if len(scored) < _FEWEST_TRIALS:
        return []
    shared = sorted(set.intersection(*(set(trial.params) for trial, _ in scored)))
    places = np.array([[_place(trial, name) for name in shared] for trial, _ in scored])
    varied = [column for column in range(len(shared)) if len(np.unique(places[:, column])) > 1]
    if len(varied) < 2:
        return []
    # It loads scikit-learn, which a search needs at its end only.
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(_NUM_TREES, min_samples_leaf=_LEAST_LEAF, random_state=0, n_jobs=1)
    forest.fit(places, [score for _, score in scored])
    whole = float(np.var(forest.predict(places)))
    if whole <= 0.0:
        return []
    others = places[:: math.ceil(len(places) / _MOST_OTHERS)]
    found = []
    for first, second in itertools.combinations(varied, 2):
        share = _variance_together(forest, places, others, first, second) / whole
        if share >= _LEAST_SHARE:
            found.append((shared[first], shared[second], min(1.0, share)))
    return sorted(found, key=lambda pair: -pair[2])[:_MOST_PAIRS]


def _place(trial: FrozenTrial, name: str) -> float:
    """Where a trial lies on a knob's axis."""
    distribution = trial.distributions[name]
    value = distribution.to_internal_repr(trial.params[name])
    if isinstance(distribution, CategoricalDistribution) or not getattr(distribution, "log", False):
        return float(value)
    return math.log(value)


def _variance_together(forest: object, places: np.ndarray, others: np.ndarray, first: int, second: int) -> float:
    """Variance of what the forest says of two knobs beyond what it says of each."""
    grids = [_grid(places[:, column]) for column in (first, second)]
    pairs = np.array(list(itertools.product(*grids)))
    rows = np.repeat(others[None], len(pairs), axis=0)
    rows[:, :, [first, second]] = pairs[:, None, :]
    said = forest.predict(rows.reshape(-1, others.shape[1])).reshape(len(pairs), -1).mean(1)  # type: ignore[attr-defined]
    table = said.reshape(len(grids[0]), len(grids[1]))
    left = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    return float(np.mean(left**2))


def _grid(values: np.ndarray) -> np.ndarray:
    """Values that trials really had, spread evenly over the trials."""
    known = np.unique(values)
    if len(known) <= _GRID:
        return known
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, _GRID), method="nearest"))
