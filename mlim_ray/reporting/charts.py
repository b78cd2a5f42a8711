"""Charts as plotly's figures, plain dictionaries that the page draws.

Colours are those of Okabe and Ito, which stay apart for colour-blind eyes; line style or symbol tells series
apart too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlim_ray.reporting.figures import MetricLine, ProbeFigures, Search, Trial, finite
from mlim_ray.reporting.probe_tables import Side, partner_rows

Chart = dict[str, Any]

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PALE = "#333333", "#8a8a8a", "#ececec"
MAX_POINTS = 1_000
"""A longer series is thinned evenly, so that a page stays small."""
_LOG_KNOBS = ("recon.weight", "train.learning_rate")
_MODE_STYLES = ((ORANGE, "dash"), (PURPLE, "dot"), (GREEN, "dashdot"))
_ROLE_STYLES = {
    "paper": (VERMILION, "square", "paper's setting"),
    "light_only": (PURPLE, "diamond", "light-only"),
    "both_heavy": (ORANGE, "triangle-up", "both 80 %"),
    "alternating": (GREEN, "triangle-down", "alternating"),
    "searched": (SKY, "circle", "searched"),
}


def run_charts(metrics: Sequence[MetricLine], probe: ProbeFigures) -> dict[str, Chart]:
    """Curves of a run by element id; empty without metric lines."""
    if not metrics:
        return {}
    lines = _thinned(metrics)
    charts = {
        "curve-total": _curves(lines, [("loss/total", "total", INK, "solid")]),
        "curve-mlm": _loss_curves(lines, "mlm", probe["unigram_entropy"], "word frequencies alone"),
        "curve-recon": _loss_curves(lines, "recon", probe["pixel_variance"], "mean colour alone"),
        "curve-rate": _curves(lines, [("time/samples_per_s", "records/s", BLUE, "solid")], from_zero=True),
        "curve-wait": _curves(lines, [("time/data_wait_ratio", "waiting for data", BLUE, "solid")], from_zero=True),
        "curve-learning-rate": _curves(lines, [("learning_rate", "learning rate", BLUE, "solid")], from_zero=True),
        "curve-gradient": _curves(lines, [("gradient_norm", "gradient norm", BLUE, "solid")], from_zero=True),
    }
    charts["curve-wait"]["layout"]["yaxis"]["tickformat"] = "~%"
    return charts


def probe_charts(probe: ProbeFigures) -> dict[str, Chart]:
    """Losses over the hidden ratio with the true, another and no partner, by element id."""
    return {f"probe-{side}": _probe_chart(probe, side) for side in ("mlm", "recon")}


def search_charts(search: Search, knobs: Sequence[str]) -> dict[str, Chart]:
    """Score over samples for every trial, and over each knob, by element id."""
    charts = {"curve-score": _score_curves(search)} if any(trial.curve for trial in search.trials) else {}
    for number, name in enumerate(knobs):
        charts[f"knob-{number}"] = _knob_chart(search, name)
    return charts


def _loss_curves(lines: Sequence[MetricLine], side: Side, floor: float | None, floor_name: str) -> Chart:
    # A mode has one style on both sides, whether or not it has targets there.
    keys = [key for line in lines for key in line if key.count("/") == 2]
    modes = list(dict.fromkeys(key.split("/")[2] for key in keys))
    series = [(f"loss/{side}", "all records", INK, "solid")]
    for number, mode in enumerate(modes):
        colour, dash = _MODE_STYLES[number % len(_MODE_STYLES)]
        if f"loss/{side}/{mode}" in keys:
            series.append((f"loss/{side}/{mode}", mode.replace("_", " "), colour, dash))
    chart = _curves(lines, series)
    if (level := finite(floor)) is not None:
        _add_level(chart, level, floor_name)
    return chart


def _curves(
    lines: Sequence[MetricLine], series: Sequence[tuple[str, str, str, str]], *, from_zero: bool = False
) -> Chart:
    samples = [finite(line.get("samples")) for line in lines]
    data = [
        {
            "type": "scatter",
            "mode": "lines" if len(lines) > 1 else "markers",
            "name": name,
            "x": samples,
            "y": [_short(line.get(key)) for line in lines],
            "line": {"color": colour, "dash": dash, "width": 2 if dash == "solid" else 1.5},
            "hovertemplate": "%{y:.4~g}",
        }
        for key, name, colour, dash in series
    ]
    layout = _layout("samples", "", show_legend=len(series) > 1)
    layout["hovermode"] = "x unified"
    if from_zero:
        layout["yaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": layout}


def _probe_chart(probe: ProbeFigures, side: Side) -> Chart:
    rows = partner_rows(probe, side)
    partner = "picture" if side == "mlm" else "title"
    series = (
        ("paired", f"true {partner}", BLUE, "solid", "circle"),
        ("shuffled", f"another record's {partner}", VERMILION, "dash", "square"),
        ("blank", f"no {partner}", GREY, "dot", "diamond"),
        ("limit", "limit", GREEN, "dashdot", "line-ew-open"),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [row.hidden_ratio for row in rows],
            "y": [_short(getattr(row, key)) for row in rows],
            "line": {"color": colour, "dash": dash, "width": 2},
            "marker": {"symbol": symbol, "size": 8, "color": colour},
            "hovertemplate": "%{y:.4~g}",
        }
        for key, name, colour, dash, symbol in series
        if any(getattr(row, key) is not None for row in rows)
    ]
    hidden = "words hidden" if side == "mlm" else "cells hidden"
    layout = _layout(hidden, "", show_legend=True)
    layout["xaxis"] |= {"tickformat": ".0%", "tickvals": [row.hidden_ratio for row in rows]}
    layout["yaxis"]["rangemode"] = "tozero"
    layout["hovermode"] = "x unified"
    return {"data": data, "layout": layout}


def _score_curves(search: Search) -> Chart:
    shown_roles: set[str] = set()
    # The winner and the references are drawn last, above the rest.
    order = sorted(search.trials, key=lambda trial: (trial is search.winner, trial.role != "searched"))
    data = []
    for trial in order:
        points = [(x, y) for x, y in trial.curve if finite(y) is not None]
        if not points:
            continue
        colour, symbol, name = _style(search, trial)
        is_special = trial is search.winner or trial.role != "searched"
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "showlegend": name not in shown_roles,
                "x": [x for x, _ in points],
                "y": [_short(y) for _, y in points],
                "line": {"color": colour, "width": 3 if trial is search.winner else 2 if is_special else 1.2},
                "marker": {
                    "color": colour,
                    "size": 8 if is_special else 5,
                    "symbol": [symbol] * (len(points) - 1) + [symbol if trial.is_ranked else "x-thin-open"],
                },
                "hovertemplate": f"trial {trial.trial} ({trial.state.lower()})<br>%{{x:,}} samples<br>"
                "score %{y:.4f}<extra></extra>",
            }
        )
        shown_roles.add(name)
    layout = _layout("samples", "score (lower is better)", show_legend=True)
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
            "line": {"color": "#bbbbbb", "width": 1, "dash": "dot"},
        }
        for rung in search.rungs
    ]
    return {"data": data, "layout": layout}


def _knob_chart(search: Search, knob: str) -> Chart:
    data = []
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in search.trials:
        if knob in trial.params and finite(trial.score) is not None:
            groups.setdefault(_style(search, trial), []).append(trial)
    for (colour, symbol, name), trials in groups.items():
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [trial.params[knob] for trial in trials],
                "y": [_short(trial.score) for trial in trials],
                "text": [f"trial {trial.trial} ({trial.state.lower()})" for trial in trials],
                "marker": {
                    "color": colour,
                    "size": 11 if name == "winner" else 9,
                    "symbol": [symbol if trial.is_ranked else f"{symbol}-open" for trial in trials],
                },
                "hovertemplate": "%{text}<br>%{x:.4~g}<br>score %{y:.4f}<extra></extra>",
            }
        )
    layout = _layout("", "", show_legend=False)
    layout["height"] = 220
    layout["hovermode"] = "closest"
    if knob in _LOG_KNOBS:
        layout["xaxis"] |= {"type": "log", "nticks": 5}
    return {"data": data, "layout": layout}


def _style(search: Search, trial: Trial) -> tuple[str, str, str]:
    colour, symbol, name = _ROLE_STYLES[trial.role]
    if trial is not search.winner:
        return colour, symbol, name
    return (BLUE, "star", "winner") if trial.role == "searched" else (colour, symbol, f"winner ({name})")


def _add_level(chart: Chart, level: float, name: str) -> None:
    """A horizontal line with its name above its right end."""
    line = {"color": GREY, "width": 1, "dash": "dot"}
    chart["layout"]["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": level,
            "y1": level,
            "layer": "below",
            "line": line,
        }
    ]
    chart["layout"]["annotations"] = [
        {
            "xref": "paper",
            "x": 1,
            "y": level,
            "xanchor": "right",
            "yanchor": "bottom",
            "text": name,
            "showarrow": False,
            "font": {"size": 11, "color": "#666666"},
        }
    ]


def _layout(x_title: str, y_title: str, *, show_legend: bool) -> dict[str, Any]:
    axis = {"gridcolor": PALE, "linecolor": "#cccccc", "zeroline": False, "automargin": True}
    return {
        "height": 300 if show_legend else 240,
        "margin": {"l": 48, "r": 12, "t": 8, "b": 40},
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "size": 12,
            "color": INK,
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": show_legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11.5}},
        "xaxis": {
            **axis,
            "title": {"text": x_title, "standoff": 6, "font": {"size": 12, "color": "#666666"}},
        },
        "yaxis": {
            **axis,
            "title": {"text": y_title, "standoff": 6, "font": {"size": 12, "color": "#666666"}},
        },
    }


def _short(value: Any) -> float | None:
    """Five significant digits; None for what is missing or not finite."""
    number = finite(value)
    return None if number is None else float(f"{number:.5g}")


def _thinned(lines: Sequence[MetricLine]) -> list[MetricLine]:
    """At most MAX_POINTS lines, evenly spaced, the first and the last among them."""
    if len(lines) <= MAX_POINTS:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]
