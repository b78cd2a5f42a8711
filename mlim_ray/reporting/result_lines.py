"""Results of evaluations as text: a table as wide as the screen allows, then the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from mlim_ray.data.rejection import shorten
from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.progress import table_text

_DIGITS, _MOST_DIGITS = 3, 6
_MOST_CHARACTERS = 72
"""of a text in a table; a description of a hundred words would push every figure off the screen"""


def result_lines(heading: str, result: Mapping[str, Any], width: int) -> Iterator[str]:
    """A result, as `evaluation.json` holds it, line by line; intervals are left out where the screen is too narrow.

    Args:
        heading: said first.
        result: with `tables` and `verdict`.
        width: of the screen, in characters.
    """
    yield heading
    for found in result["tables"]:
        if found["title"]:
            yield f"{found['title']}"
        if found["rows"]:
            yield _table(found["rows"], width)
    yield from (f"-> {sentence}" for sentence in result["verdict"])


def interval_text(estimate: Mapping[str, Any], digits: int) -> tuple[str, str]:
    """The mean and the interval of an estimate, with so many digits after the point; a dash where there is none."""
    mean, low, high = (finite(estimate[name]) for name in ("mean", "low", "high"))
    # Adding zero turns a rounded -0 into 0.
    mean, low, high = (None if value is None else round(value, digits) + 0.0 for value in (mean, low, high))
    shown = "-" if mean is None else f"{mean:.{digits}f}"
    return shown, "" if mean is None or low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def column_digits(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    """Digits after the point that an interval of middling width tells, of those in a column."""
    intervals: list[Any] = [row[name] for row in rows if is_estimate(row.get(name))]
    ends = [(finite(cell["low"]), finite(cell["high"])) for cell in intervals]
    halves = [(high - low) / 2 for low, high in ends if low is not None and high is not None and high > low]
    if not halves:
        return _DIGITS
    return min(_MOST_DIGITS, max(0, 1 - math.floor(math.log10(median(halves)))))


def is_estimate(cell: object) -> bool:
    """Whether a cell of a table is an estimate."""
    return isinstance(cell, Mapping) and {"mean", "low", "high"} <= cell.keys()


def _table(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    digits = {name: column_digits(rows, name) for row in rows for name in row}
    for with_intervals in (True, False):
        shown = [{name: _cell(cell, digits[name], with_intervals) for name, cell in row.items()} for row in rows]
        text = table_text(shown, _natural_width(shown))
        if max(map(len, text.splitlines())) <= width:
            return text.rstrip()
    return table_text(shown, width).rstrip()


def _cell(cell: object, digits: int, with_interval: bool) -> object:
    if isinstance(cell, str):
        return shorten(cell, _MOST_CHARACTERS)
    if not isinstance(cell, Mapping):
        return cell
    mean, interval = interval_text(cell, digits)
    return f"{mean} {interval}".strip() if with_interval else mean


def _natural_width(rows: Sequence[Mapping[str, Any]]) -> int:
    """More than the table can need."""
    return sum(max(len(name), *(len(str(row.get(name))) for row in rows)) + 4 for name in {n for r in rows for n in r})
