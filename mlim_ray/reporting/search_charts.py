"""Charts of a search as plotly's figures: learning curves, each knob against the score, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import combinations
from typing import Any

from mlim_ray.reporting.charts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Chart,
    layout_of,
    short,
)
from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.search_figures import ROLE_NAMES, Role, Search, Trial, knob_title

STYLES: dict[Role, tuple[str, str]] = {
    "paper": (VERMILION, "square"),
    "light_only": (PURPLE, "diamond"),
    "both_heavy": (ORANGE, "triangle-up"),
    "alternating": (GREEN, "triangle-down"),
    "searched": (SKY, "circle"),
}
"""Colour and symbol of a role."""
BEST_STYLE = (BLUE, "star")
_CROWD = 40
"""More lines of one colour are drawn faint."""
_GOLDEN = (math.sqrt(5) - 1) / 2


def search_charts(search: Search, knobs: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, Chart]:
    """Score over samples, over each of the knobs and some pairs of them, and the fronts of several objectives, by
    element id."""
    charts = {"curve-score": _score_curves(search)} if any(trial.curve for trial in search.trials) else {}
    for number, name in enumerate(knobs):
        charts[f"knob-{number}"] = _knob_chart(search, name)
    for number, pair in enumerate(pairs):
        charts[f"pair-{number}"] = _pair_chart(search, *pair)
    for number, (first, second) in enumerate(combinations(range(len(search.objectives)), 2)):
        charts[f"front-{number}"] = _front_chart(search, first, second)
    return charts


def best_name(search: Search) -> str:
    """What the best trial is called where the page marks it."""
    if search.winner is not None:
        return "winner"
    return "best so far" if search.is_running else "lowest mean" if search.confirmation is not None else "best score"


def is_categorical(values: Iterable[Any]) -> bool:
    """Whether any value of a knob is no number."""
    return any(isinstance(value, bool) or not isinstance(value, int | float) for value in values)


def _groups(search: Search, is_shown: Callable[[Trial], bool]) -> list[tuple[str, str, str, list[Trial]]]:
    """Colour, symbol, name and trials of each series; references and the best trial come last, above the rest."""
    groups: dict[str, tuple[str, str, str, list[Trial]]] = {}
    for trial in sorted(search.trials, key=lambda one: (one is search.best, one.role != "searched", one.trial)):
        if not is_shown(trial):
            continue
        (colour, symbol), name = STYLES[trial.role], ROLE_NAMES[trial.role]
        if trial is search.best:
            colour, symbol = BEST_STYLE if trial.role == "searched" else (colour, symbol)
            name = best_name(search) if trial.role == "searched" else f"{best_name(search)}: {name}"
        groups.setdefault(name, (colour, symbol, name, []))[3].append(trial)
    return list(groups.values())


def _score_curves(search: Search) -> Chart:
    data = []
    for colour, symbol, name, trials in _groups(search, lambda trial: bool(_points(trial))):
        x: list[float | None] = []
        y: list[float | None] = []
        symbols: list[str] = []
        texts: list[str] = []
        for trial in trials:
            points = _points(trial)
            # One series for all trials of a role, with a gap between two: a series a trial would be slow to draw.
            x += [*(samples for samples, _ in points), None]
            y += [*(short(score) for _, score in points), None]
            last = symbol if trial.is_ranked or trial.state == "RUNNING" else "x-thin-open"
            symbols += [*[symbol] * (len(points) - 1), last, symbol]
            texts += [_label(trial)] * (len(points) + 1)
        is_special = name != ROLE_NAMES["searched"]
        is_crowd = len(trials) > _CROWD
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": x,
                "y": y,
                "text": texts,
                "connectgaps": False,
                "opacity": 0.4 if is_crowd else 1,
                "line": {"color": colour, "width": 2.2 if is_special else 1},
                "marker": {"color": colour, "size": 9 if is_special else 3 if is_crowd else 5, "symbol": symbols},
                "hovertemplate": "%{text}<br>%{x:,} samples<br>score %{y:.4f}<extra></extra>",
            }
        )
    layout = layout_of("samples", "score (lower is better)", show_legend=True)
    layout["hovermode"] = "closest"
    layout["height"] = 420
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": rung,
            "x1": rung,
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "line": {"color": GREY, "width": 1, "dash": "dot"},
        }
        for rung in search.rungs
    ]
    return {"data": data, "layout": layout}


def _points(trial: Trial) -> list[tuple[float, float]]:
    return [(x, score) for x, y in trial.curve if (score := finite(y)) is not None]


def _knob_chart(search: Search, knob: str) -> Chart:
    place, axis = _knob_axis(search, knob)
    data = []
    for colour, symbol, name, trials in _groups(
        search, lambda trial: knob in trial.params and finite(trial.score) is not None
    ):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [place(trial) for trial in trials],
                "y": [short(trial.score) for trial in trials],
                "text": [f"{_label(trial)}<br>{_value_text(trial.params[knob])}" for trial in trials],
                "marker": _marker(colour, symbol, trials, 11 if trials[0] is search.best else 8),
                "hovertemplate": "%{text}<br>score %{y:.4f}<extra></extra>",
            }
        )
    layout = layout_of("", "", show_legend=False)
    layout["height"] = 220
    layout["hovermode"] = "closest"
    layout["xaxis"] |= axis
    return {"data": data, "layout": layout}


def _pair_chart(search: Search, first: str, second: str) -> Chart:
    """Where in two knobs trials stand, coloured by their score at the first rung, which all of them reached."""
    trials = [trial for trial in search.trials if _points(trial) and first in trial.params and second in trial.params]
    (x_of, x_axis), (y_of, y_axis) = _knob_axis(search, first), _knob_axis(search, second)
    scores = [short(_points(trial)[0][1]) for trial in trials]
    layout = layout_of(escape(knob_title(first)), escape(knob_title(second)), show_legend=False)
    layout["hovermode"] = "closest"
    layout["height"] = 320
    layout["xaxis"] |= x_axis
    layout["yaxis"] |= y_axis
    colour_bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": "score", "font": {"size": 11}}}
    marker = {"color": scores, "colorscale": "Viridis", "showscale": True, "size": 10, "colorbar": colour_bar}
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [x_of(trial) for trial in trials],
                "y": [y_of(trial) for trial in trials],
                "text": [
                    f"{_label(trial)}<br>{_value_text(trial.params[first])}, {_value_text(trial.params[second])}"
                    for trial in trials
                ],
                "marker": marker | {"line": {"color": GREY, "width": 0.5}},
                "hovertemplate": "%{text}<br>score %{marker.color:.4f}<extra></extra>",
            }
        ],
        "layout": layout,
    }


def _knob_axis(search: Search, knob: str) -> tuple[Callable[[Trial], float], dict[str, Any]]:
    """Where a trial stands on the axis of a knob, and what the axis shows."""
    values = [trial.params[knob] for trial in search.trials if knob in trial.params]
    if not is_categorical(values):
        axis: dict[str, Any] = {}
        if knob in search.log_knobs and all(value > 0 for value in values):
            ticks = _log_ticks(min(values), max(values))
            axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
        return lambda trial: float(f"{trial.params[knob]:.5g}"), axis
    levels = list(dict.fromkeys(str(value) for value in values))
    names = [escape(level if len(level) <= 16 else f"{level[:15]}...") for level in levels]

    def place(trial: Trial) -> float:
        # Points of one level are spread a little, the same way each time, so that none hides another.
        return round(levels.index(str(trial.params[knob])) + ((trial.trial * _GOLDEN) % 1 - 0.5) * 0.5, 3)

    return place, {
        "tickvals": list(range(len(levels))),
        "ticktext": names,
        "tickangle": 0,
        "tickfont": {"size": 10},
        "range": [-0.5, len(levels) - 0.5],
        "showgrid": False,
    }


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, as few as a small chart can name."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1]
        if len(inside) >= 3:
            break
    return inside or [low]


def _front_chart(search: Search, first: int, second: int) -> Chart:
    def pair(trial: Trial) -> tuple[float, float] | None:
        if trial.objectives is None or len(trial.objectives) != len(search.objectives):
            return None
        x, y = finite(trial.objectives[first]), finite(trial.objectives[second])
        return None if x is None or y is None else (x, y)

    front = sorted(point for trial in search.front() if (point := pair(trial)) is not None)
    data: list[dict[str, Any]] = []
    if len(search.objectives) == 2 and front:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "front",
                "x": [short(x) for x, _ in front],
                "y": [short(y) for _, y in front],
                # What a step encloses is what some trial of the front beats in both.
                "line": {"color": BLUE, "width": 1.5, "dash": "dash", "shape": "hv"},
                "hoverinfo": "skip",
            }
        )
    on_front = {trial.trial for trial in search.front()}
    for colour, symbol, name, trials in _groups(search, lambda trial: pair(trial) is not None):
        points = [point for trial in trials if (point := pair(trial)) is not None]
        marker = _marker(colour, symbol, trials, 9)
        marker["size"] = [13 if trial.trial in on_front else 8 for trial in trials]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [short(x) for x, _ in points],
                "y": [short(y) for _, y in points],
                "text": [_label(trial) for trial in trials],
                "marker": marker,
                "hovertemplate": "%{text}<br>%{x:.4f}, %{y:.4f}<extra></extra>",
            }
        )
    layout = layout_of(escape(search.objectives[first]), escape(search.objectives[second]), show_legend=True)
    layout["hovermode"] = "closest"
    layout["height"] = 380
    return {"data": data, "layout": layout}


def _marker(colour: str, symbol: str, trials: Sequence[Trial], size: int) -> dict[str, Any]:
    """Filled where a trial ran to the end."""
    symbols = [symbol if trial.is_ranked else f"{symbol}-open" for trial in trials]
    return {"color": colour, "size": size, "symbol": symbols, "opacity": 0.85}


def _label(trial: Trial) -> str:
    return f"{trial.name} ({trial.state.lower()})"


def _value_text(value: Any) -> str:
    number = finite(value)
    return escape(str(value)) if number is None else f"{number:.4g}"
