"""Charts of a run and of a probe as plotly's figures, plain dictionaries that the page draws.

Colours are names of the page's style sheet, which has them for light and for dark: those of Okabe and Ito, which stay
apart for colour-blind eyes. Line style or symbol tells series apart too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlim_ray.reporting.figures import MetricLine, ProbeFigures, finite
from mlim_ray.reporting.probe_tables import Side, partner_rows

Chart = dict[str, Any]

BLUE, VERMILION, GREEN = "--chart-blue", "--chart-vermilion", "--chart-green"
PURPLE, ORANGE, SKY = "--chart-purple", "--chart-orange", "--chart-sky"
INK, SOFT, GREY, LINE, GRID = "--chart-ink", "--chart-soft", "--chart-grey", "--chart-line", "--chart-grid"
MAX_POINTS = 1_000
"""A longer series is thinned evenly, so that a page stays small."""
_MODE_STYLES = ((ORANGE, "dash"), (PURPLE, "dot"), (GREEN, "dashdot"))


def run_charts(metrics: Sequence[MetricLine], probe: ProbeFigures) -> dict[str, Chart]:
    """Curves of a run by element id; empty without metric lines."""
    if not metrics:
        return {}
    lines = thinned(metrics)
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
            "y": [short(line.get(key)) for line in lines],
            "line": {"color": colour, "dash": dash, "width": 2 if dash == "solid" else 1.5},
            "hovertemplate": "%{y:.4~g}",
        }
        for key, name, colour, dash in series
    ]
    layout = layout_of("samples", "", show_legend=len(series) > 1)
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
            "y": [short(getattr(row, key)) for row in rows],
            "line": {"color": colour, "dash": dash, "width": 2},
            "marker": {"symbol": symbol, "size": 8, "color": colour},
            "hovertemplate": "%{y:.4~g}",
        }
        for key, name, colour, dash, symbol in series
        if any(getattr(row, key) is not None for row in rows)
    ]
    hidden = "words hidden" if side == "mlm" else "cells hidden"
    layout = layout_of(hidden, "", show_legend=True)
    layout["xaxis"] |= {"tickformat": ".0%", "tickvals": [row.hidden_ratio for row in rows]}
    layout["yaxis"]["rangemode"] = "tozero"
    layout["hovermode"] = "x unified"
    return {"data": data, "layout": layout}


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
            "font": {"size": 11, "color": SOFT},
        }
    ]


def layout_of(x_title: str, y_title: str, *, show_legend: bool) -> dict[str, Any]:
    """What all charts share."""
    axis = {"gridcolor": GRID, "linecolor": LINE, "zeroline": False, "automargin": True}
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
            "title": {"text": x_title, "standoff": 6, "font": {"size": 12, "color": SOFT}},
        },
        "yaxis": {
            **axis,
            "title": {"text": y_title, "standoff": 6, "font": {"size": 12, "color": SOFT}},
        },
    }


def short(value: Any) -> float | None:
    """Five significant digits; None for what is missing or not finite."""
    number = finite(value)
    return None if number is None else float(f"{number:.5g}")


def thinned(lines: Sequence[MetricLine]) -> list[MetricLine]:
    """At most MAX_POINTS lines, evenly spaced, the first and the last among them."""
    if len(lines) <= MAX_POINTS:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]
