"""The table of all trials: columns, and cells with the values that they are sorted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlim_ray.reporting.figures import at_paper_ratio, finite
from mlim_ray.reporting.page import DASH, figure, fixed, knob
from mlim_ray.reporting.search_charts import best_name, is_categorical
from mlim_ray.reporting.search_figures import ROLE_NAMES, Search, Trial, knob_title

STATE_NAMES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}
_MEASURES = {"probe": "probe", "mlm": "MLM", "recon": "RECON"}
_PARTNERS = {"paired": "true", "shuffled": "other", "blank": "none"}
_AT_PAPER_RATIO = {"mlm": ("MLM at 80 % hidden, picture", 3), "recon": ("RECON at 80 % hidden, title", 4)}


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown, and what it is sorted by: empty where it is missing."""

    text: str
    value: str
    is_text: bool = False


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    group: str
    """heading above it and its neighbours"""
    full_name: str
    cell: Callable[[Trial], Cell]
    is_text: bool = False


@dataclass(frozen=True)
class TableRow:
    """One trial."""

    trial: Trial
    cells: tuple[Cell, ...]
    is_best: bool


@dataclass(frozen=True)
class Group:
    """Neighbouring columns under one heading."""

    name: str
    size: int


@dataclass(frozen=True)
class TrialTable:
    """Rows, best first; trials that did not run to the end follow, those with the most samples first."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    rows: tuple[TableRow, ...]
    group_starts: frozenset[int]
    """columns at which a group begins"""


def trial_table(search: Search) -> TrialTable:
    """All trials of a search."""
    columns = _columns(search)
    groups: list[Group] = []
    starts = set()
    for number, column in enumerate(columns):
        if groups and groups[-1].name == column.group:
            groups[-1] = Group(column.group, groups[-1].size + 1)
        else:
            groups.append(Group(column.group, 1))
            starts.add(number)
    others = sorted(
        (trial for trial in search.trials if not trial.is_ranked), key=lambda one: (-one.samples, one.trial)
    )
    rows = [
        TableRow(trial, tuple(column.cell(trial) for column in columns), trial is search.best)
        for trial in [*search.ranked(), *others]
    ]
    return TrialTable(tuple(columns), tuple(groups), tuple(rows), frozenset(starts - {0}))


def _columns(search: Search) -> list[Column]:
    front = {trial.trial for trial in search.front()} if len(search.objectives) > 1 else set()

    def role(trial: Trial) -> Cell:
        marks = [best_name(search)] if trial is search.best else []
        marks += ["front"] if trial.trial in front else []
        name = ROLE_NAMES[trial.role]
        return Cell(" \u00b7 ".join([name, *marks]), name, is_text=True)

    columns = [
        Column("trial", "", "number of the trial", lambda one: Cell(str(one.trial), str(one.trial))),
        Column("role", "", "reference or searched", role, is_text=True),
        Column("state", "", "how it ended", lambda one: _words(STATE_NAMES.get(one.state, one.state)), is_text=True),
        Column("samples", "", "records seen", lambda one: Cell(figure(one.samples), str(one.samples))),
        Column("score", "", f"{', '.join(search.objectives)}; lower is better", lambda one: _number(one.score, 4)),
    ]
    if len(search.objectives) > 1:
        columns += [
            Column(name, "objectives", name, _objective(number)) for number, name in enumerate(search.objectives)
        ]
    shown = [
        name
        for name in _MEASURES
        if name not in search.objectives and any(name in trial.measures for trial in search.trials)
    ]
    columns += [Column(_MEASURES[name], "last rung", f"{name} of the partner probe", _measure(name)) for name in shown]
    columns += [
        Column(
            "picture", "linear probe", "accuracy, picture only", lambda one: _number(one.accuracy("picture_only"), 3)
        ),
        Column("+ title", "linear probe", "accuracy, with title", lambda one: _number(one.accuracy("with_title"), 3)),
    ]
    for name in search.knobs:
        section, dot, _ = name.rpartition(".")
        title = knob_title(name)
        columns.append(
            Column(
                title.partition(": ")[2] if dot else title,
                section.replace("_", " ") or "masking",
                name,
                _param(name),
                is_text=is_categorical(trial.params[name] for trial in search.trials if name in trial.params),
            )
        )
    if any(trial.probe is not None for trial in search.trials):
        for side, (group, digits) in _AT_PAPER_RATIO.items():
            columns += [
                Column(name, group, f"{side} with the {name} partner", _partner(f"{side}_{partner}", digits))
                for partner, name in _PARTNERS.items()
            ]
    return columns


def _objective(number: int) -> Callable[[Trial], Cell]:
    return lambda trial: _number(
        trial.objectives[number] if trial.objectives is not None and number < len(trial.objectives) else None, 4
    )


def _measure(name: str) -> Callable[[Trial], Cell]:
    return lambda trial: _number(trial.measures.get(name), 4)


def _param(name: str) -> Callable[[Trial], Cell]:
    def cell(trial: Trial) -> Cell:
        if name not in trial.params:
            return Cell("", "")
        value = trial.params[name]
        if finite(value) is None:
            return _words(figure(value))
        return Cell(knob(value), repr(value))

    return cell


def _partner(name: str, digits: int) -> Callable[[Trial], Cell]:
    def cell(trial: Trial) -> Cell:
        at: Any = at_paper_ratio(trial.probe) or {}
        return _number(at.get(name), digits)

    return cell


def _number(value: float | None, digits: int) -> Cell:
    number = finite(value)
    return Cell(DASH, "") if number is None else Cell(fixed(number, digits), repr(number))


def _words(text: str) -> Cell:
    return Cell(text, "" if text == DASH else text, is_text=True)
