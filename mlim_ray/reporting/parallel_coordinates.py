"""Parallel coordinates: an axis a knob, a line a trial, as the places of an SVG.

Own SVG and not plotly's: that needs WebGL, prints badly, and has no way to say that a trial has no value on an axis.
Here a line that skips axes which its policy does not have is dashed until the next one that it has.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.search_charts import is_categorical
from mlim_ray.reporting.search_figures import Search, Trial

HEIGHT = 370
TOP, BOTTOM = 72, 30
_SIDE = 42
_AXIS_GAP = 70
_MIN_WIDTH = 1_080
_NUM_RANKS = 4
_LONGEST_LABEL = 12
_HEADING_WIDTH, _NUM_HEADING_LINES = 10, 3
"""characters of a line, and lines below the section's name"""


@dataclass(frozen=True)
class AxisLabel:
    """A value beside an axis."""

    y: float
    text: str


@dataclass(frozen=True)
class Axis:
    """One upright axis."""

    x: float
    name: str
    """the knob's whole name"""
    heading: tuple[str, ...]
    """lines above it, section first"""
    labels: tuple[AxisLabel, ...]
    note: str = ""


@dataclass(frozen=True)
class TrialLine:
    """The line of one trial."""

    trial: int
    role: str
    """class of its colour: best, a reference's role, rank-0 (best) to rank-3 by score, or stopped"""
    title: str
    solid: str
    """path through axes side by side"""
    dashed: str
    """path over axes that its policy does not have"""
    dots: tuple[tuple[float, float], ...]
    """of the best and the references alone"""
    places: str
    """heights on all axes with blanks between, `-` where it has none"""


@dataclass(frozen=True)
class ParallelCoordinates:
    """What the SVG shows; later lines lie above earlier ones."""

    width: float
    height: float
    top: float
    bottom: float
    axes: tuple[Axis, ...]
    lines: tuple[TrialLine, ...]


def parallel_coordinates(search: Search, knobs: Sequence[str]) -> ParallelCoordinates | None:
    """All trials over the knobs and the score; None without two axes or without a trial that has parameters.

    The score's axis has the trials that ran to the end alone: after fewer samples it is no score to compare.
    """
    ranked = search.ranked()
    trials = [trial for trial in search.trials if any(name in trial.params for name in knobs)]
    if not trials or not knobs:
        return None
    num_axes = len(knobs) + 1
    gap = max(_AXIS_GAP, (_MIN_WIDTH - 2 * _SIDE) / max(1, num_axes - 1))
    scales = [_Scale([trial.params.get(name) for trial in trials], name in search.log_knobs) for name in knobs]
    scales.append(_Scale([trial.score for trial in ranked], False))
    axes = []
    for number, (name, scale) in enumerate(zip([*knobs, "score"], scales, strict=True)):
        section, _, short = name.rpartition(".")
        heading = (section, *_wrapped(short.replace("_", " ")))
        axes.append(
            Axis(
                x=round(_SIDE + number * gap, 1),
                name=name,
                heading=heading,
                labels=scale.labels(),
                note="log scale" if scale.is_log else "lower is better" if name == "score" else "",
            )
        )
    rank = {trial.trial: number * _NUM_RANKS // len(ranked) for number, trial in enumerate(ranked)}
    lines = []
    # Good ones above bad ones, references and the best above all.
    order = sorted(
        trials, key=lambda one: (one is search.best, one.role != "searched", one.is_ranked, -(one.score or 0.0))
    )
    for trial in order:
        values = [*(trial.params.get(name) for name in knobs), trial.score if trial.is_ranked else None]
        places = [scale.place(value) for scale, value in zip(scales, values, strict=True)]
        lines.append(_line(search, trial, [axis.x for axis in axes], places, rank.get(trial.trial)))
    return ParallelCoordinates(
        round(2 * _SIDE + (num_axes - 1) * gap, 1), HEIGHT, TOP, HEIGHT - BOTTOM, tuple(axes), tuple(lines)
    )


def _line(
    search: Search, trial: Trial, xs: Sequence[float], places: Sequence[float | None], rank: int | None
) -> TrialLine:
    known = [(number, x, y) for number, (x, y) in enumerate(zip(xs, places, strict=True)) if y is not None]
    solid: list[str] = []
    dashed: list[str] = []
    for (last, x0, y0), (number, x1, y1) in pairwise(known):
        part = f"M{x0:g} {y0:g}L{x1:g} {y1:g}"
        (solid if number == last + 1 else dashed).append(part)
    is_special = trial is search.best or trial.role != "searched"
    if trial is search.best and trial.role == "searched":
        role = "best"
    elif is_special:
        role = trial.role
    else:
        role = "stopped" if rank is None else f"rank-{rank}"
    score = f"score {trial.score:.4f}" if trial.is_ranked else trial.state.lower()
    return TrialLine(
        trial.trial,
        role,
        f"{trial.name}, {score}: " + ", ".join(f"{name} {_text(value)}" for name, value in trial.params.items()),
        _joined(solid),
        _joined(dashed),
        tuple((x, y) for _, x, y in known) if is_special else (),
        " ".join("-" if y is None else f"{y:g}" for y in places),
    )


def _joined(parts: Sequence[str]) -> str:
    """Segments as one path; a segment that starts where the last one ended only continues it."""
    path, end = "", ""
    for part in parts:
        start, _, stop = part.partition("L")
        path += f"L{stop}" if start[1:] == end else part
        end = stop
    return path


class _Scale:
    """From the values of a knob to heights; high values stand high."""

    def __init__(self, values: Sequence[Any], is_log: bool) -> None:
        known = [value for value in values if value is not None]
        self._levels = list(dict.fromkeys(str(value) for value in known)) if is_categorical(known) else None
        numbers = [] if self._levels is not None else [n for value in known if (n := finite(value)) is not None]
        self.is_log = is_log and bool(numbers) and min(numbers) > 0
        self._low, self._high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        self._has_values = bool(known)

    def place(self, value: Any) -> float | None:
        if value is None:
            return None
        if self._levels is not None:
            # The first level stands at the top; a single one in the middle.
            share = 1 - (self._levels.index(str(value)) + 0.5) / len(self._levels)
        elif (number := finite(value)) is None:
            return None
        elif self._high == self._low:
            share = 0.5
        elif self.is_log:
            share = math.log(number / self._low) / math.log(self._high / self._low)
        else:
            share = (number - self._low) / (self._high - self._low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def labels(self) -> tuple[AxisLabel, ...]:
        if not self._has_values:
            return ()
        values: Sequence[Any]
        if self._levels is not None:
            values = self._levels
        else:
            middle = math.sqrt(self._low * self._high) if self.is_log else (self._low + self._high) / 2
            values = [self._low, middle, self._high] if self._high > self._low else [self._low]
        return tuple(
            AxisLabel(place, _cut(_text(value))) for value in values if (place := self.place(value)) is not None
        )


def _wrapped(text: str) -> list[str]:
    """Lines that fit between two axes, at most three."""
    lines = [_cut(line) for line in textwrap.wrap(text, _HEADING_WIDTH, break_long_words=False)]
    return lines if len(lines) <= _NUM_HEADING_LINES else [*lines[: _NUM_HEADING_LINES - 1], ".."]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 2]}.."


def _text(value: Any) -> str:
    number = finite(value)
    return str(value) if number is None else f"{number:.3g}"
