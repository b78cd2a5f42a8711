"""What an evaluation says, in a form that the console, the page and `evaluation.json` all show."""

from dataclasses import dataclass, field
from typing import Protocol

from mlim_ray.evaluation.intervals import Estimate

Cell = str | int | float | Estimate | None
"""An `Estimate` is shown with its interval, None as a dash."""


@dataclass(frozen=True)
class ResultTable:
    """One table; every row has the same columns, in the order of the first."""

    title: str
    caption: str
    """what is measured, on what, and what would be good, in a sentence or two"""
    rows: list[dict[str, Cell]] = field(default_factory=list)


class Result(Protocol):
    """A frozen dataclass of numbers, strings, `Estimate`s, and lists and dicts of them, so that `asdict` makes JSON."""

    def tables(self) -> list[ResultTable]:
        """For a person to read."""

    def verdict(self) -> list[str]:
        """What may be claimed, in plain sentences; "no difference found" is one."""
