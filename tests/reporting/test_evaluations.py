"""Evaluations on a run's page and on the console."""

from __future__ import annotations

from typing import Any

import pytest

from mlim_ray.reporting.evaluations import with_evaluations
from mlim_ray.reporting.result_lines import column_digits, interval_text, result_lines


def estimate(mean: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high}


def result(**row: Any) -> dict[str, Any]:
    rows = [{"features": "this <b>encoder</b>", "accuracy": estimate(0.68312, 0.66512, 0.70212), "n": 1_200, **row}]
    return {"tables": [{"title": "Told apart", "caption": "On test.", "rows": rows}], "verdict": ["better & so on"]}


def found(**tasks: Any) -> dict[str, Any]:
    return {
        "source": "shop",
        "records": {"train": 800, "val": 100, "test": 100},
        "step": 300,
        "skipped": {"pairs": "no groups"},
        "overlap": {"tables": [], "verdict": ["nothing"]},
        "tasks": {name: {"asks": "is it?", "seconds": 3.0, **task} for name, task in tasks.items()},
    }


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (estimate(0.68312, 0.66512, 0.70212), ("0.683", "[0.665, 0.702]")),
        (estimate(0.00044, 0.00041, 0.00048), ("0.000440", "[0.000410, 0.000480]")),
        (estimate(1234.5, 1200.0, 1300.0), ("1234", "[1200, 1300]")),
        (estimate(0.5, 0.5, 0.5), ("0.500", "[0.500, 0.500]")),
        (estimate(-0.0001, -0.02, 0.02), ("0.000", "[-0.020, 0.020]")),
        (estimate(0.5, None, None), ("0.500", "")),
        (estimate(None, None, None), ("-", "")),
    ],
)
def test_an_interval_has_as_many_digits_as_it_tells(given: dict[str, Any], shown: tuple[str, str]) -> None:
    assert interval_text(given, column_digits([{"x": given}], "x")) == shown


def test_a_column_has_the_digits_of_its_middling_interval() -> None:
    rows = [{"x": estimate(0.5, 0.4, 0.6)}, {"x": estimate(0.5, 0.49, 0.51)}, {"x": None, "y": "text"}]
    assert column_digits(rows, "x") == 3 and column_digits(rows, "y") == 3
    assert column_digits(rows[:1], "x") == 2


def test_the_console_shows_intervals_where_there_is_room() -> None:
    wide = "\n".join(result_lines("heading", result(), 100))
    narrow = "\n".join(result_lines("heading", result(), 45))
    assert "0.683 [0.665, 0.702]" in wide and "1,200" in wide and "-> better & so on" in wide
    assert "0.683" in narrow and "[0.665" not in narrow
    assert max(map(len, narrow.splitlines())) <= 45


@pytest.mark.parametrize("width", [30, 50, 80, 240])
def test_a_screen_too_narrow_for_a_table_shows_it_in_parts_and_cuts_nothing(width: int) -> None:
    figures = {f"linear probe, {side}, of the size number {i}": 0.1 + i / 1_000 for i in range(9) for side in "xy"}
    rows = [{"setting": setting, **figures, "best": "mam-80"} for setting in ("independent-15", "independent-50")]
    shown = {"tables": [{"title": "Means", "caption": "", "rows": rows}], "verdict": []}
    lines = "\n".join(result_lines("heading", shown, width)).splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width and "…" not in text
    num_parts = text.count("independent-15")
    assert num_parts == text.count("independent-50") == text.count("setting") and (num_parts > 1) == (width < 240)
    assert all(text.count(f"{figure:.4g}") == 4 for figure in set(figures.values()) - {0.1}) and "mam-80" in text


def test_parts_repeat_no_more_columns_than_tell_the_rows_apart() -> None:
    texts = {name: name[0] * 30 for name in "xyz"}
    rows = [{"side": "image", "way": way, **texts} for way in ("probe", "fine-tuned")]
    shown = {"tables": [{"title": "", "caption": "", "rows": rows}], "verdict": []}
    lines = "\n".join(result_lines("heading", shown, 50)).splitlines()
    assert max(map(len, lines)) <= 50
    parts = [line.split() for line in lines if line.startswith("side")]
    assert parts == [["side", "way", name] for name in "xyz"]


def test_the_console_cuts_a_long_text_and_no_figure() -> None:
    lines = "\n".join(result_lines("heading", result(title="a very long description " * 20), 1_000))
    assert "a very long description a very long description a very long descripti..." in lines
    assert "0.683 [0.665, 0.702]" in lines and max(map(len, lines.splitlines())) < 160


def test_a_page_gets_a_section_and_later_a_newer_one_in_its_place() -> None:
    page = '<main><h2 id="linear">L</h2><h2 id="pictures">P</h2></main>'
    once = with_evaluations(page, {"shop": found(partner=result())}, "runs/a b")
    assert once.index("linear") < once.index('id="evaluations"') < once.index('id="pictures"')
    assert "this &lt;b&gt;encoder&lt;/b&gt;" in once and "<b>encoder" not in once
    assert "0.683 <small>[0.665, 0.702]</small>" in once and "better &amp; so on" in once
    assert "pairs skipped: no groups" in once and "train 800, val 100, test 100" in once
    twice = with_evaluations(once, {"shop": found(partner=result(), other=result(n=7)), "s3://other": found()}, "r")
    assert twice.count('id="evaluations"') == twice.count('id="pictures"') == twice.count('id="linear"') == 1
    assert "s3://other" in twice and twice.endswith("</main>")
    assert with_evaluations(twice, {"shop": found(partner=result())}, "runs/a b") == once


def test_a_page_of_something_else_stays_as_it_is() -> None:
    assert with_evaluations("<p>mine</p>", {"shop": found()}, "r") == "<p>mine</p>"


def test_a_page_without_evaluations_says_how_to_get_some() -> None:
    page = with_evaluations('<h2 id="pictures">', {}, "runs/a b")
    assert "mlim-ray evaluate &#39;runs/a b&#39; --on SOURCE" in page
