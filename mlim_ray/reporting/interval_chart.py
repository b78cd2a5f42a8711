"""Dots with their intervals on one axis, as places in per cent that the page draws with boxes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlim_ray.reporting.search_figures import ConfirmedArm, ScoreDifference, Search
from mlim_ray.reporting.verdict import called, change_text

_MARGIN = 0.04
_NUM_TICKS = 6


@dataclass(frozen=True)
class IntervalRow:
    """One dot with its interval; places are per cent of the axis."""

    name: str
    role: str
    """class of its colour"""
    note: str
    centre: float
    low: float
    high: float
    points: tuple[float, ...]
    """single seeds"""
    earlier: float | None
    """the one score of the search, which chose it; None where it lies outside or there is none"""
    figures: str


@dataclass(frozen=True)
class Tick:
    """A number on the axis."""

    at: float
    text: str


@dataclass(frozen=True)
class IntervalChart:
    """Rows above one axis."""

    rows: tuple[IntervalRow, ...]
    ticks: tuple[Tick, ...]
    line: float | None
    """place of a line through all rows"""
    line_name: str


def arms_chart(search: Search) -> IntervalChart | None:
    """The confirmed settings, best first, with the single score that each had in the search."""
    confirmation = search.confirmation
    if confirmation is None:
        return None
    arms = sorted(confirmation.arms, key=lambda arm: arm.mean)
    earlier = {arm.trial: _score(search, arm) for arm in arms}
    scores = [score for score in earlier.values() if score is not None]
    axis = Axis([*(value for arm in arms for value in (*arm.interval, *arm.scores)), *scores])
    rows = []
    for arm in arms:
        trial = search.trial(arm.trial)
        score = earlier[arm.trial]
        low, high = arm.interval
        rows.append(
            IntervalRow(
                name=f"Trial {arm.trial}" if trial is None else called(trial),
                role="best" if arm.role == "searched" and arm is confirmation.best else arm.role,
                note="winner" if arm.trial == confirmation.winner else "",
                centre=axis.place(arm.mean),
                low=axis.place(low),
                high=axis.place(high),
                points=tuple(axis.place(value) for value in arm.scores),
                earlier=None if score is None else axis.place(score),
                figures=f"{arm.mean:.4f} [{low:.4f}, {high:.4f}]",
            )
        )
    paper = next((arm.mean for arm in arms if arm.role == "paper"), None)
    return IntervalChart(
        tuple(rows), axis.ticks(), None if paper is None else axis.place(paper), "the paper's setting, mean"
    )


def differences_chart(search: Search) -> IntervalChart | None:
    """Paired differences of the best confirmed setting to each other one, then the rest, with a line at zero."""
    confirmation = search.confirmation
    if confirmation is None or not confirmation.differences:
        return None
    best = confirmation.best.trial
    first = confirmation.differences_of(best)
    rest = [one for one in confirmation.differences if best not in (one.trial, one.against)]
    axis = Axis([0.0, *(value for one in [*first, *rest] for value in one.interval)])
    return IntervalChart(
        tuple(_difference_row(search, one, axis) for one in [*first, *rest]),
        axis.ticks(signed=True),
        axis.place(0.0),
        "no difference",
    )


def _difference_row(search: Search, one: ScoreDifference, axis: Axis) -> IntervalRow:
    first, second = search.trial(one.trial), search.trial(one.against)
    assert first is not None and second is not None, "Search.of checks that every confirmed setting is a trial's"
    low, high = one.interval
    other = called(second)
    return IntervalRow(
        name=f"{called(first)} against {other[0].lower()}{other[1:]}",
        role="found" if one.is_found else "open",
        note="difference found" if one.is_found else "no difference found",
        centre=axis.place(one.mean),
        low=axis.place(low),
        high=axis.place(high),
        points=(),
        earlier=None,
        figures=f"{change_text(one.mean)} [{low:+.4f}, {high:+.4f}]",
    )


def _score(search: Search, arm: ConfirmedArm) -> float | None:
    trial = search.trial(arm.trial)
    return None if trial is None or not trial.is_ranked else trial.score


class Axis:
    """From values to per cent of the width."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        room = (high - low or abs(high) or 1.0) * _MARGIN
        self.low, self.high = low - room, high + room

    def place(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ticks(self, *, signed: bool = False) -> tuple[Tick, ...]:
        """Round numbers, at most seven."""
        raw = (self.high - self.low) / _NUM_TICKS
        magnitude = 10 ** math.floor(math.log10(raw))
        step = next(size for size in (1, 2, 5, 10) if size * magnitude >= raw) * magnitude
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        sign = "+" if signed else ""
        return tuple(
            Tick(self.place(number * step), f"{number * step + 0.0:{sign if number else ''}.{digits}f}")
            for number in range(first, last + 1)
        )
