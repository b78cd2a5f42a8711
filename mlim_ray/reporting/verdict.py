"""What a search found, in words: winner, references, and whether a score without masking agrees (C5, C10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlim_ray.reporting.figures import Role, Search, Trial, finite
from mlim_ray.reporting.probe_tables import accuracy_difference_error

SINGLE_SEED = (
    "Each trial ran once, with one seed, so the order of close trials may be chance. To claim that one "
    "setting beats another, give both the same budget, at least three fresh seeds, and an interval."
)
DISAGREEMENT = "The score and the linear probe, which masks nothing, disagree on the winner."
Agreement = Literal["agrees", "unclear", "disagrees", "unknown"]
"""Whether the linear probe names the same winner as the masked score; unclear: a difference within noise."""
_FOUND_BY = {"picture_only": "from the picture alone", "with_title": "with the title"}
_REFERENCES: tuple[tuple[Role, str], ...] = (
    ("paper", "the paper's setting"),
    ("light_only", "light-only masking"),
)


@dataclass(frozen=True)
class Comparison:
    """The winner against one reference."""

    name: str
    score: float | None
    """None where the reference did not run to the end"""
    change: float | None
    """(winner - reference) / reference; negative means that the winner is better"""


@dataclass(frozen=True)
class Verdict:
    """The head of a search's page."""

    headline: str
    agreement: Agreement
    agreement_sentences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def sentences(self) -> list[str]:
        """The verdict in words; where scores with and without masks disagree, that comes first (C5)."""
        if self.agreement == "disagrees":
            return [DISAGREEMENT, *self.agreement_sentences, self.headline, SINGLE_SEED]
        return [self.headline, *self.agreement_sentences, SINGLE_SEED]


def judge(search: Search) -> Verdict:
    """The verdict on a search, from its ranked trials alone."""
    winner = search.winner
    score = winner.score or 0.0
    comparisons = []
    for role, name in _REFERENCES:
        trial = search.reference(role)
        reference = finite(trial.score) if trial is not None and trial.is_ranked else None
        change = None if not reference else (score - reference) / reference
        comparisons.append(Comparison(name, reference, change))
    agreement, sentences = _agreement(search.ranked(), winner)
    return Verdict(_headline(winner, score, comparisons), agreement, sentences, tuple(comparisons))


def _headline(winner: Trial, score: float, comparisons: list[Comparison]) -> str:
    if winner.role != "searched":
        return f"No searched trial beat {dict(_REFERENCES)[winner.role]}, score {score:.4f}."
    against = [
        f"{abs(other.change) * 100:.1f} % {'below' if other.change < 0 else 'above'} {other.name}"
        for other in comparisons
        if other.change is not None
    ]
    compared = f": {', '.join(against)}" if against else ""
    return f"Trial {winner.trial} has the best score, {score:.4f}{compared}."


def _agreement(ranked: list[Trial], winner: Trial) -> tuple[Agreement, tuple[str, ...]]:
    """Compare with the best linear probe; a difference within two standard errors decides nothing."""
    levels: list[Agreement] = []
    names = {trial.trial: trial.name for trial in ranked}
    sentences = []
    for key, how in _FOUND_BY.items():
        accuracies = {trial.trial: value for trial in ranked if (value := _accuracy(trial, key)) is not None}
        if winner.trial not in accuracies or len(accuracies) < 2 or winner.linear_probe is None:
            continue
        ours = accuracies[winner.trial]
        leader, best = max(accuracies.items(), key=lambda item: item[1])
        noise = 2 * accuracy_difference_error(ours, best, winner.linear_probe["num_held_out"])
        figures = f"{best:.3f} against the winner's {ours:.3f}"
        if best <= ours:
            levels.append("agrees")
            sentences.append(f"The linear probe {how} ranks the winner first too ({ours:.3f}).")
        elif best - ours <= noise:
            levels.append("unclear")
            sentences.append(
                f"The linear probe {how} has {names[leader]} ahead, {figures}, within two standard errors "
                f"({noise:.3f})."
            )
        else:
            levels.append("disagrees")
            sentences.append(
                f"The linear probe {how} ranks {names[leader]} first, {figures}: more than two standard "
                f"errors ({noise:.3f}) apart."
            )
    if not levels:
        return "unknown", ("No score without masking: there is no linear probe of two or more trials to compare.",)
    worst = max(levels, key=("agrees", "unclear", "disagrees").index)
    return worst, tuple(sentences)


def _accuracy(trial: Trial, key: str) -> float | None:
    return None if trial.linear_probe is None else finite(trial.linear_probe.get(key))
