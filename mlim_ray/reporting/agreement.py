"""Whether a score without any masking names the same winner as the score that ranked the trials (C5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.probe_tables import accuracy_difference_error
from mlim_ray.reporting.search_figures import ERROR_OF, AccuracyKey, Confirmation, Search, Trial

Agreement = Literal["agrees", "unclear", "disagrees", "unknown"]
"""Whether the linear probe names the same winner as the score; unclear: another is ahead, within noise."""
_FOUND_BY: dict[AccuracyKey, str] = {"picture_only": "from the picture alone", "with_title": "with the title"}
_CHANCE = 0.05
"""how often a difference that is none may count as one"""
_NOTHING = "No score without masking: there is no linear probe of two or more trials to compare."

Finding = tuple[Agreement, str]


def agreement_of(search: Search) -> tuple[Agreement, tuple[str, ...]]:
    """The worst finding of the linear probe's two figures, and a sentence for each.

    With a confirmation: paired differences over its seeds, with the chance that lies in the held-out records, which are
    the same for every seed. Without: the trials that ran to the end, once each; what the best of so many may be ahead
    by chance over the held-out records decides nothing. A figure that is itself the score cannot disagree with it and
    is left out; where both are, the probe that masks is laid beside them.
    """
    if search.best is None:
        return "unknown", (_NOTHING,)
    keys = [key for key in _FOUND_BY if list(search.objectives) != [ERROR_OF[key]]]
    if all(name in ERROR_OF.values() for name in search.objectives):
        found = [_masked(search.ranked(), search.best)]
    elif search.confirmation is not None:
        found = [_confirmed(search, search.confirmation, key) for key in keys]
    else:
        found = [_single(search.ranked(), search.best, key) for key in keys]
    findings = [finding for finding in found if finding is not None]
    if not findings:
        return "unknown", (_NOTHING,)
    worst = max((level for level, _ in findings), key=("agrees", "unclear", "disagrees").index)
    return worst, tuple(sentence for _, sentence in findings)


def _confirmed(search: Search, confirmation: Confirmation, key: AccuracyKey) -> Finding | None:
    best = confirmation.best
    ours = best.accuracies(key)
    others = {arm.trial: values for arm in confirmation.arms if (values := arm.accuracies(key)) and arm is not best}
    num_held_out = _num_held_out(search.ranked())
    if not ours or not others or num_held_out is None:
        return None
    name = _name(search, best.trial)
    leader, theirs = max(others.items(), key=lambda item: _mean(item[1]))
    figures = f"{_mean(theirs):.3f} against {_mean(ours):.3f} of {name}, means of {len(ours)} seeds"
    how = _FOUND_BY[key]
    if _mean(theirs) <= _mean(ours):
        return (
            "agrees",
            f"The linear probe {how} ranks {name} first too ({_mean(ours):.3f}, mean of {len(ours)} seeds).",
        )
    # Here and not above: it loads scipy's statistics, which every command would wait for.
    from mlim_ray.evaluation.intervals import difference_of

    difference = difference_of(theirs, ours)
    over_seeds = (difference.high - difference.low) / 2
    over_records = _quantile(1) * accuracy_difference_error(_mean(ours), _mean(theirs), num_held_out)
    noise = math.hypot(over_seeds, over_records)
    low, high = difference.mean - noise, difference.mean + noise
    interval = f"95 % interval of the difference over seeds and held-out records {low:+.3f} to {high:+.3f}"
    if low > 0:
        return "disagrees", f"The linear probe {how} ranks {_name(search, leader)} first, {figures} ({interval})."
    return (
        "unclear",
        f"The linear probe {how} has {_name(search, leader)} ahead, {figures}, within chance ({interval}).",
    )


def _single(ranked: Sequence[Trial], best: Trial, key: AccuracyKey) -> Finding | None:
    accuracies = {trial.trial: value for trial in ranked if (value := trial.accuracy(key)) is not None}
    num_held_out = _num_held_out(ranked)
    if best.trial not in accuracies or len(accuracies) < 2 or num_held_out is None:
        return None
    ours = accuracies[best.trial]
    leader, theirs = max(accuracies.items(), key=lambda item: item[1])
    noise = _quantile(len(accuracies) - 1) * accuracy_difference_error(ours, theirs, num_held_out)
    name = next(trial.name for trial in ranked if trial.trial == leader)
    figures = f"{theirs:.3f} against {ours:.3f} of {best.name}"
    how = _FOUND_BY[key]
    if theirs <= ours:
        return "agrees", f"The linear probe {how} ranks {best.name} first too ({ours:.3f})."
    if theirs - ours <= noise:
        return "unclear", f"The linear probe {how} has {name} ahead, {figures}, within chance ({noise:.3f})."
    return "disagrees", f"The linear probe {how} ranks {name} first, {figures}: more than chance gives ({noise:.3f})."


def _num_held_out(ranked: Sequence[Trial]) -> int | None:
    """Records that every linear probe of the search was measured on; None where there was none."""
    return next((trial.linear_probe["num_held_out"] for trial in ranked if trial.linear_probe is not None), None)


def _quantile(num_others: int) -> float:
    """Standard errors that the best of so many others stays within, 95 times of 100 (Bonferroni)."""
    return NormalDist().inv_cdf(1 - _CHANCE / 2 / num_others)


def _masked(ranked: Sequence[Trial], best: Trial) -> Finding | None:
    """Of a search that the linear probe itself ranked: the masked probe, whose noise one seed does not tell."""
    losses = {trial.trial: value for trial in ranked if (value := finite(trial.measures.get("probe"))) is not None}
    if best.trial not in losses or len(losses) < 2:
        return None
    ours = losses[best.trial]
    leader, theirs = min(losses.items(), key=lambda item: item[1])
    if theirs >= ours:
        return "agrees", f"The partner probe, which masks, ranks {best.name} first too ({ours:.4f})."
    name = next(trial.name for trial in ranked if trial.trial == leader)
    return "unclear", (
        f"The partner probe, which masks, ranks {name} first, {theirs:.4f} against {ours:.4f} of {best.name}, one seed "
        "each; trials were ranked by the linear probe."
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _name(search: Search, number: int) -> str:
    trial = search.trial(number)
    return f"trial {number}" if trial is None else trial.name
