"""Results of evaluations as text: a table as wide as the screen allows, then the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.progress import table_text

_MOST_DIGITS = 6


def result_lines(heading: str, result: Mapping[str, Any], width: int) -> Iterator[str]:
    """A result, as `evaluation.json` holds it, line by line; intervals are left out where the screen is too narrow.

    Args:
        heading: said first.
        result: with `tables` and `verdict`.
        width: of the screen, in characters.
    """
    yield heading
    for found in result["tables"]:
        yield f"{found['title']}"
        if found["rows"]:
            yield _table(found["rows"], width)
    yield from (f"-> {sentence}" for sentence in result["verdict"])


def interval_text(estimate: Mapping[str, Any]) -> tuple[str, str]:
    """The mean and the interval of an estimate, with as many digits as the interval tells."""
    mean, low, high = (finite(estimate[name]) for name in ("mean", "low", "high"))
    if mean is None:
        return "-", ""
    if low is None or high is None:
        return f"{mean:.4g}", ""
    half = (high - low) / 2
    digits = 3 if half <= 0 else min(_MOST_DIGITS, max(0, 1 - math.floor(math.log10(half))))
    # Adding zero turns a rounded -0 into 0.
    mean, low, high = (round(value, digits) + 0.0 for value in (mean, low, high))
    return f"{mean:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"


def is_estimate(cell: object) -> bool:
    """Whether a cell of a table is an estimate."""
    return isinstance(cell, Mapping) and {"mean", "low", "high"} <= cell.keys()


def _table(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    for with_intervals in (True, False):
        shown = [{name: _cell(cell, with_intervals) for name, cell in row.items()} for row in rows]
        text = table_text(shown, _natural_width(shown))
        if max(map(len, text.splitlines())) <= width:
            return text.rstrip()
    return table_text(shown, width).rstrip()


def _cell(cell: object, with_interval: bool) -> object:
    if not isinstance(cell, Mapping):
        return cell
    mean, interval = interval_text(cell)
    return f"{mean} {interval}".strip() if with_interval else mean


def _natural_width(rows: Sequence[Mapping[str, Any]]) -> int:
    """More than the table can need."""
    return sum(max(len(name), *(len(str(row.get(name))) for row in rows)) + 4 for name in {n for r in rows for n in r})
