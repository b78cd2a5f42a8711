"""What a search found, in words: for the head of its page and for the console (C5, C10).

A winner is named only with the interval of fresh seeds; "no difference was found" is an answer. Where the score and
the linear probe, which masks nothing, disagree, that comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlim_ray.reporting.agreement import Agreement, agreement_of
from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.search_figures import Confirmation, ConfirmedArm, Role, ScoreDifference, Search, Trial

SINGLE_SEED = (
    "Each trial ran once, with one seed, so the order of close trials may be chance. To claim that one "
    "setting beats another, give both the same budget, at least three fresh seeds, and an interval."
)
DISAGREEMENT = "The score and the linear probe, which masks nothing, disagree on the winner."
_SHOWN: tuple[tuple[Role, str], ...] = (
    ("paper", "the paper's setting"),
    ("light_only", "light-only masking"),
)
_REFERENCE_NAMES: dict[Role, str] = {
    **dict(_SHOWN),
    "both_heavy": "hiding 80 % of both sides",
    "alternating": "alternating masking",
}


@dataclass(frozen=True)
class Comparison:
    """The best trial against one reference; of the confirmation's means where there is one."""

    name: str
    score: float | None
    """None where the reference has not run to the end"""
    change: float | None
    """(best - reference) / reference; negative means that the best is better"""


@dataclass(frozen=True)
class Verdict:
    """The head of a search's page."""

    headline: str
    details: tuple[str, ...]
    """what stands behind the headline"""
    agreement: Agreement
    agreement_sentences: tuple[str, ...]
    caution: str | None
    """what must not be read into it; None where nothing has to be added"""
    comparisons: tuple[Comparison, ...]

    @property
    def sentences(self) -> list[str]:
        """The verdict in words; where scores with and without masks disagree, that comes first (C5)."""
        warning = [DISAGREEMENT, *self.agreement_sentences] if self.agreement == "disagrees" else []
        rest = [] if warning else list(self.agreement_sentences)
        return [*warning, self.headline, *self.details, *rest, *([] if self.caution is None else [self.caution])]


def judge(search: Search) -> Verdict:
    """The verdict on a search, finished or under way, from its trials and its confirmation alone."""
    best = search.best
    confirmation = search.confirmation
    if best is None:
        agreement, sentences = agreement_of(search)
        headline = _progress(search) if search.is_running else "No trial came to its end with a score."
        return Verdict(headline, (), agreement, () if search.is_running else sentences, None, ())
    comparisons = _comparisons(search, best)
    agreement, sentences = agreement_of(search)
    if search.is_running:
        # While it goes on, nothing is judged yet.
        so_far = f"Best so far: {_so_far(best, comparisons)}, one seed each; no winner is named before the end."
        return Verdict(_progress(search), (so_far, *_front(search)), "unknown", (), None, comparisons)
    if confirmation is None:
        return Verdict(
            _single_headline(best, comparisons), _front(search), agreement, sentences, SINGLE_SEED, comparisons
        )
    return Verdict(
        _confirmed_headline(search, confirmation),
        (*_difference_sentences(search, confirmation), *_left_out(search, confirmation), *_front(search)),
        agreement,
        sentences,
        _noise(confirmation),
        comparisons,
    )


def called(trial: Trial) -> str:
    """A trial at the beginning of a sentence."""
    if trial.role == "searched":
        return f"Trial {trial.trial}"
    name = _REFERENCE_NAMES[trial.role]
    return f"{name[0].upper()}{name[1:]}"


def _progress(search: Search) -> str:
    running = search.num_planned - search.num_ended
    if search.phase == "confirming":
        return (
            f"All {search.num_planned} trials ended; the best and the references run again with fresh seeds, which is "
            "not finished."
        )
    going = sum(trial.state == "RUNNING" for trial in search.trials)
    return (
        f"The search goes on: {search.num_ended} of {search.num_planned} trials ended, {going} running, "
        f"{running - going} to come."
    )


def _comparisons(search: Search, best: Trial) -> tuple[Comparison, ...]:
    ours = _level(search, best)
    comparisons = []
    for role, name in _SHOWN:
        trial = search.reference(role)
        theirs = None if trial is None else _level(search, trial)
        change = None if ours is None or not theirs else (ours - theirs) / theirs
        comparisons.append(Comparison(name, theirs, change))
    return tuple(comparisons)


def _level(search: Search, trial: Trial) -> float | None:
    """The confirmation's mean if there is one, else the score of a trial that ran to the end."""
    if search.confirmation is not None:
        arm = search.confirmation.arm(trial.trial)
        return None if arm is None else finite(arm.mean)
    return finite(trial.score) if trial.is_ranked else None


def _against(comparisons: Sequence[Comparison]) -> str:
    against = [
        f"{abs(other.change) * 100:.1f} % {'below' if other.change < 0 else 'above'} {other.name}"
        for other in comparisons
        if other.change is not None and other.change != 0
    ]
    return ", ".join(against)


def _so_far(best: Trial, comparisons: Sequence[Comparison]) -> str:
    against = _against(comparisons)
    return f"{best.name}, score {best.score or 0.0:.4f}" + (f", {against}" if against else "")


def _single_headline(best: Trial, comparisons: Sequence[Comparison]) -> str:
    score = f"{best.score or 0.0:.4f}"
    if best.role != "searched":
        return f"No searched trial beat {_REFERENCE_NAMES[best.role]}, score {score}."
    against = _against(comparisons)
    return f"Trial {best.trial} has the best score, {score}{': ' if against else ''}{against}."


def _confirmed_headline(search: Search, confirmation: Confirmation) -> str:
    best = confirmation.best
    name = called(_trial(search, best.trial))
    if confirmation.winner is not None:
        return f"{name} wins: {_mean(best)} over {len(best.scores)} fresh seeds."
    others = [one for one in confirmation.differences_of(best.trial) if not one.is_found]
    if others and len(others) < len(confirmation.arms) - 1:
        names = " and ".join(_named(search, one.against) for one in others)
        found = f"No difference was found between {_named(search, best.trial)} and {names}."
    else:
        found = "No difference was found between the confirmed settings."
    return f"{found} {name} has the lowest mean: {_mean(best)} over {len(best.scores)} fresh seeds."


def _difference_sentences(search: Search, confirmation: Confirmation) -> list[str]:
    differences = confirmation.differences_of(confirmation.best.trial)
    # What it must beat comes first.
    differences.sort(key=lambda one: _trial(search, one.against).role == "searched")
    return [_difference_sentence(search, one) for one in differences]


def _difference_sentence(search: Search, difference: ScoreDifference) -> str:
    first, second = called(_trial(search, difference.trial)), _named(search, difference.against)
    verdict = "a difference" if difference.is_found else "no difference was found"
    return f"{first} scores {change_text(difference.mean)} than {second} ({interval_text(difference)}): {verdict}."


def _left_out(search: Search, confirmation: Confirmation) -> tuple[str, ...]:
    """What a sceptic would miss: a better single score that was not run again."""
    first = search.ranked()[:1]
    if not first or confirmation.arm(first[0].trial) is not None:
        return ()
    return (
        f"{called(first[0])} had the lowest single score of the search, {first[0].score or 0.0:.4f}, and was not run "
        "again.",
    )


def change_text(change: float) -> str:
    """A signed change of the score in words."""
    return f"{abs(change):.4f} {'lower' if change < 0 else 'higher'}"


def interval_text(difference: ScoreDifference) -> str:
    """The interval of a difference in words."""
    low, high = difference.interval
    if low < 0 < high:
        return f"95 % interval from {change_text(low)} to {change_text(high)}"
    near, far = sorted((abs(low), abs(high)))
    return f"95 % interval {near:.4f} to {far:.4f} {'lower' if high <= 0 else 'higher'}"


def _noise(confirmation: Confirmation) -> str | None:
    noise = finite(confirmation.seed_noise)
    if noise is None:
        return None
    return (
        f"Seed noise: the paper's setting alone varies by {noise:.4f} (standard deviation over "
        f"{len(confirmation.seeds)} seeds), and trials of the search ran once each; those closer than a few times that "
        "cannot be told apart."
    )


def _front(search: Search) -> tuple[str, ...]:
    numbers = [str(trial.trial) for trial in search.front()]
    if len(search.objectives) < 2 or not numbers:
        return ()
    names = f"{', '.join(search.objectives[:-1])} and {search.objectives[-1]}"
    trials = f"Trial {numbers[0]} is" if len(numbers) == 1 else f"Trials {', '.join(numbers)} are"
    return (f"{trials} on the front: none is beaten in all of {names}. The score is their mean and only ranks.",)


def _mean(arm: ConfirmedArm) -> str:
    low, high = arm.interval
    return f"score {arm.mean:.4f}, 95 % interval {low:.4f} to {high:.4f},"


def _named(search: Search, number: int) -> str:
    name = called(_trial(search, number))
    return f"{name[0].lower()}{name[1:]}"


def _trial(search: Search, number: int) -> Trial:
    trial = search.trial(number)
    assert trial is not None, "Search.of checks that every confirmed setting is a trial's"
    return trial
