"""How many records a search trains on until it has a score: the arithmetic of `benchmarks.search_efficiency`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 2_000
_CONFIDENCE = 0.95


class Ended(NamedTuple):
    """A trial of a search, in the order in which trials were begun."""

    samples: int
    """records that it saw"""
    score: float | None
    """at the full budget; None where it was stopped before, or is a reference"""


Search = Sequence[Ended]
"""The trials of one search, of one seed."""


def best_of(search: Search) -> float:
    """The lowest score at the full budget, infinite without any."""
    return min((trial.score for trial in search if trial.score is not None), default=math.inf)


def samples_to(search: Search, target: float) -> float:
    """Records that were trained on, in all trials, by the end of the first that has the target; infinite if none."""
    spent = 0
    for trial in search:
        spent += trial.samples
        if trial.score is not None and trial.score <= target:
            return float(spent)
    return math.inf


class Ratio(NamedTuple):
    """Of the samples that a method needs to reach what another one reaches with its whole budget."""

    target: float
    """median over seeds of the other method's best"""
    samples: float
    """median over seeds of the method's samples to the target; infinite where most never reach it"""
    budget: float
    """median over seeds of all that the other method trains on"""
    ratio: float
    """of the two"""
    ratio_to_first: float
    """the same over the other method's own samples to the target; a seed of it that never has it counts with its whole
    budget, which favours it"""


def ratio_of(searches: Sequence[Search], others: Sequence[Search]) -> Ratio:
    """The ratio for the searches of two methods, any number of seeds each."""
    target = statistics.median(map(best_of, others))
    samples = statistics.median(samples_to(search, target) for search in searches)
    budget = statistics.median(map(_budget, others))
    to_first = statistics.median(min(samples_to(other, target), _budget(other)) for other in others)
    return Ratio(target, samples, budget, samples / budget, samples / to_first)


def interval_of(searches: Sequence[Search], others: Sequence[Search]) -> tuple[float, float]:
    """The bootstrap interval of the ratio, 95 %: seeds of both methods are drawn anew, and with them the target."""
    rng = np.random.default_rng(0)
    ratios = [ratio_of(_drawn(searches, rng), _drawn(others, rng)).ratio for _ in range(NUM_RESAMPLES)]
    # Not interpolated: between a number and infinity there is nothing.
    low, high = np.quantile(ratios, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2], method="nearest")
    return float(low), float(high)


def _budget(search: Search) -> float:
    return float(sum(trial.samples for trial in search))


def _drawn(searches: Sequence[Search], rng: np.random.Generator) -> list[Search]:
    return [searches[index] for index in rng.integers(0, len(searches), len(searches))]
