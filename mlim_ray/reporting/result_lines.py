"""Results of evaluations as text: tables that fit the screen, in parts where it is narrow, then the verdict."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from mlim_ray.data.rejection import shorten
from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.progress import table_text

_DIGITS, _MOST_DIGITS = 3, 6
_LEAST_HEADING = 9
"""characters of a line of a heading, so that many short words over a narrow column are no tower"""
_WIDER_THAN_ANY = 100_000
"""characters of a line that no table needs"""
_MOST_CHARACTERS = 72
"""of a text in a table; a description of a hundred words would push every figure off the screen"""


def result_lines(heading: str, result: Mapping[str, Any], width: int) -> Iterator[str]:
    """A result, as `evaluation.json` holds it, line by line.

    Where the screen is too narrow for a table, its intervals are left out; where that is not enough, it comes in parts.

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
        wide = [{name: _cell(cell, digits[name], with_intervals) for name, cell in row.items()} for row in rows]
        narrow = _with_narrow_headings(wide)
        for shown in (wide, narrow):
            text = _whole(shown)
            if _width(text) <= width:
                return text
    return "\n\n".join(_in_parts(narrow, width))


def _with_narrow_headings(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The same rows, with headings of several words in lines no wider than their column, or than their longest word."""
    headings = {}
    for name in _names(rows):
        cells = _width(_whole([{"": row.get(name)} for row in rows]))
        widest = max(_LEAST_HEADING, cells, *map(len, name.split()))
        headings[name] = textwrap.fill(name, widest, break_on_hyphens=False)
    return [{headings[name]: cell for name, cell in row.items()} for row in rows]


def _in_parts(rows: Sequence[Mapping[str, object]], width: int) -> Iterator[str]:
    """The table as several, each with the first columns, which tell its rows apart, and others as there is room."""
    names = _names(rows)
    num_first = next((n for n in range(1, len(names)) if _are_distinct(_columns(rows, names[:n]))), 1)
    first, taken = names[:num_first], list[str]()
    for name in names[num_first:]:
        if taken and _width(_whole(_columns(rows, [*first, *taken, name]))) > width:
            yield _whole(_columns(rows, [*first, *taken]))
            taken = []
        taken.append(name)
    yield _whole(_columns(rows, [*first, *taken]))


def _are_distinct(rows: Sequence[Mapping[str, object]]) -> bool:
    return len({str(row) for row in rows}) == len(rows)


def _names(rows: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _columns(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> list[dict[str, object]]:
    return [{name: row.get(name) for name in names} for row in rows]


def _whole(rows: Sequence[Mapping[str, object]]) -> str:
    """The table with nothing cut."""
    return table_text(rows, _WIDER_THAN_ANY).rstrip()


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def _cell(cell: object, digits: int, with_interval: bool) -> object:
    if isinstance(cell, str):
        return shorten(cell, _MOST_CHARACTERS)
    if not isinstance(cell, Mapping):
        return cell
    mean, interval = interval_text(cell, digits)
    return f"{mean} {interval}".strip() if with_interval else mean
