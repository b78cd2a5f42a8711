"""The page of a comparison: of the settings of an experiment, or of any runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlim_ray.reporting.charts import Chart
from mlim_ray.reporting.evaluations import shown_table
from mlim_ray.reporting.figures import Command
from mlim_ray.reporting.interval_chart import IntervalChart
from mlim_ray.reporting.page import render_page
from mlim_ray.reporting.run_page import flat, yaml_text

MARK = '<meta name="generator" content="mlim_ray compare">'
"""by which a page of ours can be told from any other file"""


@dataclass(frozen=True)
class Section:
    """One part of a comparison."""

    heading: str
    result: Mapping[str, Any]
    """with `tables` and `verdict`, as `evaluation.json` holds it"""
    intervals: Sequence[tuple[str, IntervalChart]] = field(default_factory=list)
    """by a heading each"""


def render_comparison_page(
    *,
    title: str,
    kind: str,
    lead: str,
    sections: Sequence[Section],
    curves: Sequence[tuple[str, str, Chart]] = (),
    commands: Sequence[Command] = (),
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> str:
    """One self-contained HTML page; everything in it is escaped.

    Args:
        title: what was compared.
        kind: what the page is, in two words.
        lead: the question, in a sentence or two.
        sections: what was found.
        curves: id, heading and figure of each chart over samples.
        commands: what to run next.
        config: what all runs share; None leaves it out.
        environment: content of `environment.json`.
    """
    return render_page(
        "comparison.html.j2",
        {name: chart for name, _, chart in curves},
        mark=MARK,
        title=title,
        kind=kind,
        lead=lead,
        sections=[
            (section, [{**table, **shown_table(table["rows"])} for table in section.result["tables"]])
            for section in sections
        ],
        curve_titles=[(name, heading) for name, heading, _ in curves],
        commands=commands,
        config=None if config is None else yaml_text(config),
        environment=[] if environment is None else flat(environment),
    )
