"""What a run was worth at its checkpoints: a chart of each probe over steps, and a table of every score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlim_ray.reporting.charts import BLUE, VERMILION, Chart, layout_of, short
from mlim_ray.reporting.evaluations import shown_table

_CHARTED = ("partner probe", "linear probe")
_STYLES = ((BLUE, "solid", "circle"), (VERMILION, "dash", "square"))


def step_charts(by_step: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """By element id: the partner probe's two losses and the linear probe's two accuracies over steps."""
    charts = {}
    for task in _CHARTED:
        names = list(dict.fromkeys(score["name"] for at in by_step for score in at["scores"] if score["task"] == task))
        if names:
            charts[f"steps-{task.replace(' ', '-')}"] = _chart(by_step, task, names)
    return charts


def step_content(by_step: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template names.

    Args:
        by_step: as `evaluation.json` holds it; nothing for a run that was measured at its end alone.
    """
    charts = step_charts(by_step)
    failed = [at for at in by_step if at["failed"] is not None]
    return {
        "step_charts": [(name, name.removeprefix("steps-").replace("-", " ")) for name in charts],
        "step_table": shown_table(_rows(by_step)),
        "step_failures": [f"Step {at['step']:,} could not be evaluated: {at['failed']}" for at in failed],
        "is_evaluated_by_step": bool(by_step),
    }


def _rows(by_step: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each score, a column for each step."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for at in by_step:
        for score in at["scores"]:
            better = "higher" if score["higher"] else "lower"
            row = rows.setdefault(
                (score["task"], score["name"]), {"task": score["task"], "score": score["name"], "better": better}
            )
            row[f"step {at['step']:,}"] = score["value"]
    return list(rows.values())


def _chart(by_step: Sequence[Mapping[str, Any]], task: str, names: Sequence[str]) -> Chart:
    data = []
    for name, (colour, dash, symbol) in zip(names, _STYLES, strict=False):
        points = [
            (at["step"], short(score["value"]))
            for at in by_step
            for score in at["scores"]
            if (score["task"], score["name"]) == (task, name)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [step for step, _ in points],
                "y": [value for _, value in points],
                "line": {"color": colour, "dash": dash, "width": 2},
                "marker": {"symbol": symbol, "size": 8, "color": colour},
                "hovertemplate": "%{y:.4~g}",
            }
        )
    layout = layout_of("steps", "", show_legend=True)
    layout["hovermode"] = "x unified"
    return {"data": data, "layout": layout}
