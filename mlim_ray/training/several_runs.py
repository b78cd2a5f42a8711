"""Several runs beside each other: what they are called, and the knobs in which they differ."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlim_ray.training.run_diff import decides
from mlim_ray.training.run_facts import RunFacts


class DifferingKnob(NamedTuple):
    """A knob that is not the same in all runs."""

    knob: str
    values: tuple[Any, ...]
    """in the order of the runs; None where a run has no such knob"""
    decides: bool
    """whether it can change what is learned"""


def differing_knobs(runs: Sequence[RunFacts]) -> list[DifferingKnob]:
    """Those that can change what is learned first."""
    found = []
    for knob in dict.fromkeys(name for run in runs for name in run.config):
        values = tuple(run.config.get(knob) for run in runs)
        if any(value != values[0] for value in values):
            found.append(DifferingKnob(knob, values, decides(knob)))
    return sorted(found, key=lambda one: not one.decides)


def names_of(paths: Sequence[str]) -> list[str]:
    """A name for each run: as many of the last parts of its path as it takes to tell it from the others."""
    parts = [[part for part in path.split("/") if part] for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of[-length:]) for of in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)
