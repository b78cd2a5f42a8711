"""What a model was found to be worth on records of any source, as a section of its run's page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlim_ray.reporting.page import DASH, figure, render_part
from mlim_ray.reporting.result_lines import column_digits, interval_text, is_estimate

_BEGIN, _END = "<!-- evaluations -->", "<!-- end of evaluations -->"
_NEXT_SECTION = '<h2 id="pictures">'
"""where the section belongs on a page that was written before there was one"""


@dataclass(frozen=True)
class ShownCell:
    """A cell of a table."""

    text: str
    interval: str = ""
    is_text: bool = False

    @classmethod
    def of(cls, cell: Any, digits: int) -> ShownCell:
        """From what `evaluation.json` holds; an estimate with so many digits after the point."""
        if is_estimate(cell):
            return cls(*interval_text(cell, digits))
        return cls(DASH if cell is None else figure(cell), is_text=isinstance(cell, str))


@dataclass(frozen=True)
class ShownColumn:
    """The head of a column."""

    name: str
    is_text: bool


def evaluations_content(evaluations: Mapping[str, Any], run: str) -> dict[str, Any]:
    """What the template of the section names.

    Args:
        evaluations: by source, as `evaluation.json` holds them.
        run: path of the run folder, for the command.
    """
    return {
        "evaluations": [_shown(source, found) for source, found in evaluations.items()],
        "evaluate_command": f"mlim-ray evaluate {shlex.quote(run)} --on SOURCE",
    }


def with_evaluations(page: str, evaluations: Mapping[str, Any], run: str) -> str:
    """A run's or a search's page with the section as these evaluations make it; a page of something else as it is."""
    section = render_part("evaluations.html.j2", **evaluations_content(evaluations, run))
    before, begun, rest = page.partition(_BEGIN)
    if begun:
        _, ended, after = rest.partition(_END)
        return before + section + after.lstrip("\n") if ended else page
    before, found, after = page.partition(_NEXT_SECTION)
    return before + section + found + after if found else page


def _shown(source: str, found: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"leakage": {"asks": "what do held-out records share with training?", **found["overlap"]}, **found["tasks"]}
    return {
        "source": source,
        "records": found["records"],
        "step": found["step"],
        "skipped": found["skipped"],
        "parts": [(name, {"seconds": None, "files": []} | part | _tables(part)) for name, part in parts.items()],
    }


def _tables(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"tables": [{**table, **shown_table(table["rows"])} for table in part["tables"]]}


def shown_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of a table with their heads, and its cells as text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    digits = {name: column_digits(rows, name) for name in names}
    cells = [[ShownCell.of(row.get(name), digits[name]) for name in names] for row in rows]
    is_text = [any(row[place].is_text for row in cells) for place in range(len(names))]
    columns = [ShownColumn(name, text) for name, text in zip(names, is_text, strict=True)]
    aligned = [
        [ShownCell(cell.text, cell.interval, text) for cell, text in zip(row, is_text, strict=True)] for row in cells
    ]
    return {"columns": columns, "rows": aligned}
