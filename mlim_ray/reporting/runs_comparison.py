"""Any runs beside each other: their curves, the knobs in which they differ, and their scores."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlim_ray.data import storage
from mlim_ray.evaluation.scores import Score, scores_of
from mlim_ray.reporting.charts import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Chart,
    layout_of,
    short,
    thinned,
)
from mlim_ray.reporting.comparison_page import Section, render_comparison_page
from mlim_ray.reporting.figures import Command, finite
from mlim_ray.training.run_facts import RunFacts, read_run
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.several_runs import DifferingKnob, differing_knobs, names_of

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)
_DASHES = ("solid", "dash", "dot", "dashdot")
_CURVES = (
    ("loss/total", "Total loss, weighted"),
    ("loss/mlm", "MLM, nats per hidden piece"),
    ("loss/recon", "RECON, squared error per pixel"),
    ("learning_rate", "Learning rate"),
    ("time/samples_per_s", "Records per second"),
)


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs."""

    facts: RunFacts
    evaluation: Mapping[str, Any]
    """content of `evaluation.json`; of an unfinished run, what `mlim-ray evaluate` found so far"""
    is_finished: bool

    @property
    def state(self) -> str:
        """How far it has come."""
        step, planned = self.facts.last_step, self.facts.config.get("train.num_steps")
        if self.is_finished:
            return f"finished, {step:,} steps"
        return f"unfinished, step {step:,}{f' of {planned:,}' if isinstance(planned, int) else ''}"


def read_compared(path: str) -> ComparedRun:
    """The run in the folder `path`, local or on S3, finished or not. Raises ValueError where there is none."""
    folder = RunFolder(path)
    facts = read_run(folder.path)
    if folder.is_finished:
        return ComparedRun(facts, folder.read_json("evaluation.json"), is_finished=True)
    found = storage.join("evaluation", "results.json")
    evaluations = folder.read_json(found) if storage.exists(folder.file(found)) else {}
    return ComparedRun(facts, {"evaluations": evaluations}, is_finished=False)


def sections_of(runs: Sequence[ComparedRun]) -> list[Section]:
    """What the console and the page show: the runs, their differences, their scores."""
    names = names_of([run.facts.path for run in runs])
    rows = [{"run": name, "path": run.facts.path, "state": run.state} for name, run in zip(names, runs, strict=True)]
    sets = {run.facts.manifest_sha256 for run in runs}
    same = "Not all runs say which prepared set they learn from." if None in sets else _sets(len(sets))
    sections = [_section("Runs", "How far each of them is.", rows, same)]
    knobs = differing_knobs([run.facts for run in runs])
    for decides, heading, caption in (
        (True, "Configuration", "The knobs that are not the same in all runs and can change what is learned."),
        (False, "Configuration, of no consequence", "Knobs that differ and change nothing of what is learned."),
    ):
        chosen = [knob for knob in knobs if knob.decides == decides]
        if chosen or decides:
            sections.append(_section(heading, caption, [_knob_row(knob, names) for knob in chosen]))
    scores = [scores_of(run.evaluation) for run in runs]
    caption = (
        "From the evaluation.json of each run, evaluations on any source included. One run each: whether a difference "
        "is more than the noise of seeds, only several seeds show. Partner probe: losses with the true partner, mean "
        "over hidden ratios; 1 is knowing frequencies and the mean colour only. Below a figure: what needs no "
        "pre-training."
    )
    sections.append(_section("Scores", caption, _score_rows(names, scores)))
    return sections


def render_runs_page(runs: Sequence[ComparedRun], sections: Sequence[Section]) -> str:
    """One self-contained HTML page with the curves as well."""
    paths = [run.facts.path for run in runs]
    names = names_of(paths)
    return render_comparison_page(
        title=f"{len(runs)} runs",
        kind="comparison of runs",
        lead=", ".join(names),
        sections=sections,
        curves=[
            (f"curve-{number}", heading, chart)
            for number, (key, heading) in enumerate(_CURVES)
            if (chart := _curves(names, runs, key)) is not None
        ],
        commands=[
            Command(
                "The first step at which two of them differ, and in what:",
                f"mlim-ray diff {shlex.join(paths[:2])}",
            )
        ],
    )


def _section(heading: str, caption: str, rows: Sequence[Mapping[str, Any]], *verdict: str) -> Section:
    return Section(heading, {"tables": [{"title": "", "caption": caption, "rows": rows}], "verdict": verdict})


def _sets(number: int) -> str:
    if number == 1:
        return "All learn from the same prepared set."
    return f"They learn from {number} different prepared sets, so losses and scores are of different records."


def _knob_row(knob: DifferingKnob, names: Sequence[str]) -> dict[str, Any]:
    values = ["-" if value is None else str(value) for value in knob.values]
    return {"knob": knob.knob, **dict(zip(names, values, strict=True))}


def _score_rows(names: Sequence[str], scores: Sequence[Sequence[Score]]) -> list[dict[str, Any]]:
    by_run = [{(one.task, one.name): one for one in of_run} for of_run in scores]
    rows = []
    for task, name in dict.fromkeys(key for of_run in by_run for key in of_run):
        found = [of_run.get((task, name)) for of_run in by_run]
        first = next(one for one in found if one is not None)
        figure = f"{name} ({'higher' if first.higher_is_better else 'lower'} is better)"
        values = [None if one is None else one.value for one in found]
        rows.append({"measured by": task, "figure": figure, **dict(zip(names, values, strict=True))})
        for baseline in dict.fromkeys(key for one in found if one is not None for key in one.baselines):
            values = [None if one is None else one.baselines.get(baseline) for one in found]
            rows.append({"measured by": task, "figure": f"- {baseline}", **dict(zip(names, values, strict=True))})
    return rows


def _curves(names: Sequence[str], runs: Sequence[ComparedRun], key: str) -> Chart | None:
    """A line for each run that logged `key`; None where none did."""
    data = []
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        lines = [line for line in thinned(run.facts.lines) if finite(line.get(key)) is not None]
        if not lines:
            continue
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if len(lines) > 1 else "markers",
                "name": name,
                "x": [finite(line.get("samples")) for line in lines],
                "y": [short(line[key]) for line in lines],
                "line": {"color": _COLOURS[number % len(_COLOURS)], "dash": dash, "width": 2},
                "hovertemplate": "%{y:.4~g}",
            }
        )
    if not data:
        return None
    layout = layout_of("samples", "", show_legend=len(data) > 1)
    layout["hovermode"] = "x unified"
    return {"data": data, "layout": layout}
