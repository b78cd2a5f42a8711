"""The page of a search: complete, honest about what a trial does not have, and calm about what is missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from mlim_ray.evaluation.pictures import ReconstructionRow
from mlim_ray.reporting.interval_chart import arms_chart, differences_chart
from mlim_ray.reporting.parallel_coordinates import parallel_coordinates
from mlim_ray.reporting.search_figures import Search
from mlim_ray.reporting.verdict import judge
from tests.reporting.made_pages import (
    BEST_YAML,
    COMMANDS,
    IMPORTANCE,
    LINEAR,
    Page,
    confirmation,
    evaluation,
    many_trials,
    params,
    picture_rows,
    probe,
    search,
    search_page,
    trial,
    trials,
    undecided,
)


def rows_of(page: Page) -> list[dict[str, str | None]]:
    return [attrs for tag, attrs in page.elements if tag == "tr" and "data-state" in attrs]


def test_a_search_page_has_every_figure() -> None:
    page = Page(search_page())
    for one in trials():
        for value in one["params"].values():
            assert (value if isinstance(value, str) else f"{value:.3g}") in page.text
        if one["score"] is not None:
            assert f"{one['score']:.4f}" in page.text
        if one["evaluation"] is not None:
            at = one["evaluation"]["probe"]["at"][2]
            for side, digits in (("mlm", 3), ("recon", 4)):
                for partner in ("paired", "shuffled", "blank"):
                    assert f"{at[f'{side}_{partner}']:.{digits}f}" in page.text
    for text in ("failed", "stopped early", "80,000", BEST_YAML.split()[1], "num_trials: 5"):
        assert text in page.text, text
    for command in COMMANDS:
        assert command.line in page.text
    baselines = LINEAR["baselines"]
    assert isinstance(baselines, Mapping)
    for value in baselines.values():
        assert f"{value:.3f}" in page.text


def test_the_page_says_what_the_verdict_says() -> None:
    for of in (search(), search(confirmation=confirmation()), search(confirmation=undecided())):
        page = Page(search_page(of))
        for sentence in judge(of).sentences:
            assert sentence in page.text
    assert "winner" in Page(search_page()).text
    assert "lowest mean" in Page(search_page(search(confirmation=undecided()))).text


def test_confirmed_settings_are_laid_on_one_axis() -> None:
    chart = arms_chart(search(confirmation=confirmation()))
    assert chart is not None
    assert [row.name for row in chart.rows] == ["Trial 2", "The paper's setting", "Light-only masking"]
    for row in chart.rows:
        assert 0 < row.low < row.centre < row.high < 100 and all(0 < at < 100 for at in row.points)
    assert chart.line == chart.rows[1].centre
    # What the search chose by, 0.7406, lies left of the mean of fresh seeds, 0.7427.
    earlier = chart.rows[0].earlier
    assert earlier is not None and earlier < chart.rows[0].centre
    assert 3 <= len(chart.ticks) <= 6
    assert [row.note for row in chart.rows] == ["winner", "", ""]


def test_differences_lie_on_the_right_side_of_no_difference() -> None:
    chart = differences_chart(search(confirmation=confirmation()))
    assert chart is not None and chart.line is not None
    first, second, third = chart.rows
    assert first.high < chart.line and second.high < chart.line < third.low
    assert second.name == "Trial 2 against light-only masking" and "0.0623 lower" in second.figures
    assert any(tick.text == "0.00" and tick.at == pytest.approx(chart.line, abs=0.1) for tick in chart.ticks)
    open_ones = differences_chart(search(confirmation=undecided()))
    assert open_ones is not None and open_ones.line is not None
    assert all(row.low < open_ones.line < row.high and row.role == "open" for row in open_ones.rows)


def test_curves_and_slices_show_every_trial_that_was_measured() -> None:
    charts = Page(search_page()).charts()
    series = charts["curve-score"]["data"]
    assert {one["name"] for one in series} == {"winner", "paper's setting", "light-only", "searched"}
    assert sum(x is not None for one in series for x in one["x"]) == 7
    # A line that did not come to its end ends in a cross.
    assert next(one for one in series if one["name"] == "searched")["marker"]["symbol"][0] == "x-thin-open"
    # Two knobs took more than one value.
    assert {"knob-0", "knob-1"} <= set(charts) and "knob-2" not in charts
    assert sum(len(one["x"]) for one in charts["knob-0"]["data"]) == 4


def test_a_slice_has_log_axes_and_words_and_leaves_out_trials_without_the_knob() -> None:
    found = [
        trial(0, params=params("mam")),
        trial(1, params=params("independent", **{"recon.weight": 100.0, "independent.text_ratio": 0.5})),
        trial(2, params=params("independent")),
    ]
    page = Page(search_page(search(found, log_knobs=["recon.weight"]), pictures={}))
    titles = [attrs["title"] for tag, attrs in page.elements if tag == "h3" and "title" in attrs]
    charts = dict(zip(titles, (page.charts()[f"knob-{n}"] for n in range(len(titles))), strict=True))
    assert set(charts) == {"policy", "independent.text_ratio", "recon.weight"}
    assert charts["recon.weight"]["layout"]["xaxis"]["type"] == "log"
    assert charts["policy"]["layout"]["xaxis"]["ticktext"] == ["mam", "independent"]
    assert all(abs(x - round(x)) <= 0.25 for one in charts["policy"]["data"] for x in one["x"])
    assert sum(len(one["x"]) for one in charts["independent.text_ratio"]["data"]) == 2


def test_a_parallel_line_has_no_place_where_its_policy_has_no_knob() -> None:
    found = [
        trial(0, params=params("mam")),
        trial(1, params=params("independent", **{"recon.weight": 100.0})),
        trial(2, params=params("mam"), state="PRUNED"),
    ]
    of = search(found)
    plot = parallel_coordinates(of, ["policy", "mam.text_heavy_ratio", "independent.text_ratio", "recon.weight"])
    assert plot is not None
    assert [axis.name for axis in plot.axes][-1] == "score"
    places = {line.trial: line.places.split(" ") for line in plot.lines}
    assert [place == "-" for place in places[0]] == [False, False, True, False, False]
    assert [place == "-" for place in places[1]] == [False, True, False, False, False]
    # A score after fewer samples is no place on the score's axis.
    assert places[2][-1] == "-"
    lines = {line.trial: line for line in plot.lines}
    assert lines[0].dashed.count("M") == 1 and lines[0].solid.count("M") == 2
    assert lines[2].role == "stopped" and lines[0].role == "best" and plot.lines[-1].trial == 0
    assert parallel_coordinates(search([]), []) is None


def test_the_front_of_two_objectives_is_drawn_and_marked() -> None:
    points = [(0.5, 0.9), (0.6, 0.6), (0.9, 0.5), (0.7, 0.7)]
    found = [trial(n, score=sum(point) / 2, objectives=point) for n, point in enumerate(points)]
    page = Page(search_page(search(found, objectives=["mlm", "recon"]), pictures={}))
    line, *groups = page.charts()["front-0"]["data"]
    assert list(zip(line["x"], line["y"], strict=True)) == [(0.5, 0.9), (0.6, 0.6), (0.9, 0.5)]
    assert sum(len(group["x"]) for group in groups) == 4
    cells = [attrs["data-value"] for tag, attrs in page.elements if tag == "td" and "data-value" in attrs]
    assert {"0.5", "0.9", "0.6"} <= set(cells)
    assert page.text.count("front") > 3
    three = search(
        [trial(0, objectives=(1, 2, 3)), trial(1, objectives=(2, 1, 3))], objectives=["mlm", "recon", "probe"]
    )
    assert {"front-0", "front-1", "front-2"} <= set(Page(search_page(three, pictures={})).charts())


def test_importance_is_shown_with_what_it_was_measured_on() -> None:
    text = Page(search_page()).text
    assert IMPORTANCE["measured_on"] in text
    assert "mam: text heavy ratio 41 % recon: weight 26 % policy 12 % train: learning rate 0 %" in text
    # A pair is shown where enough trials have both and are scored.
    many = search(many_trials(24), importance=IMPORTANCE)
    pairs = [chart for name, chart in Page(search_page(many, pictures={})).charts().items() if name.startswith("pair-")]
    # The learning rate varies too; the policy does not among trials that have a knob of one policy.
    titles = [tuple(chart["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")) for chart in pairs]
    assert titles == [
        ("mam: text heavy ratio", "recon: weight"),
        ("recon: weight", "policy"),
        ("mam: text heavy ratio", "train: learning rate"),
    ]
    # Stopped or not, all are compared at the first rung.
    scored = [one for one in many.trials if one.curve and "mam.text_heavy_ratio" in one.params]
    assert pairs[0]["data"][0]["marker"]["color"] == pytest.approx([one.curve[0][1] for one in scored], rel=1e-4)
    assert "recon: weight \u00d7 train: learning rate 17 %" in text
    assert "it takes more trials than there are" in Page(search_page(search())).text


def test_trials_are_listed_best_first_and_sortable() -> None:
    page = Page(search_page())
    numbers = re.findall(r"<tr [^>]*data-state=[^>]*>\s*<td[^>]* data-value=\"(\d+)\">", search_page())
    assert numbers == ["2", "0", "1", "3", "4"]
    assert [row["data-state"] for row in rows_of(page)] == ["complete"] * 3 + ["stopped early", "failed"]
    num_columns = len([attrs for tag, attrs in page.elements if tag == "th" and "data-column" in attrs])
    # Number, role, state, samples, score; linear probe; nine knobs and the policy; two sides at 80 %.
    assert num_columns == 5 + 2 + 10 + 6
    values = [attrs["data-value"] for tag, attrs in page.elements if tag == "td" and "data-value" in attrs]
    assert len(values) == 5 * num_columns
    # A figure that is missing has no value to sort by.
    assert values[4 * num_columns + 4] == ""


def test_a_failure_is_shown_with_its_reason() -> None:
    page = Page(search_page())
    assert page.text.count("out of memory: 9.1 GB of 8 GB") == 1
    assert rows_of(page)[-1]["title"] == "out of memory: 9.1 GB of 8 GB"
    unknown = search([trial(0), trial(1, state="FAIL", score=None, curve=[], evaluation=None)])
    assert "no reason was recorded" in Page(search_page(unknown, pictures={})).text


def test_pictures_of_best_and_reference_are_side_by_side() -> None:
    def names(html: str) -> list[str]:
        return sorted(str(attrs.get("alt")) for tag, attrs in Page(html).elements if tag == "img")

    both = ["input", "masked", "paper's setting", "paper's setting, composite"]
    assert names(search_page()) == sorted([*both, "winner", "winner, composite"])
    # Where no difference was found, nothing on the page is called the winner.
    open_ones = search_page(search(confirmation=undecided()))
    assert names(open_ones) == sorted([*both, "lowest mean", "lowest mean, composite"])
    alone = search_page(search([trial(0, "paper"), trial(2)]))
    assert "it is the paper's setting itself" in Page(alone).text
    assert len(names(alone)) == 4


def test_pictures_of_a_model_that_never_saw_visible_cells_say_so() -> None:
    masked = search([trial(2, params=params(**{"recon.target": "masked"})), trial(0, "paper", score=0.9)])
    assert "was never asked of it" in Page(search_page(masked)).text
    assert "was never asked of it" not in Page(search_page()).text


def test_pictures_of_other_records_are_refused() -> None:
    other = [ReconstructionRow(8, *list(vars(picture_rows()[0]).values())[1:])]
    with pytest.raises(ValueError, match="show different records"):
        search_page(pictures={0: other, 2: picture_rows()})


def test_a_page_of_a_search_under_way_says_so_and_opens_itself_anew() -> None:
    found = [*trials()[:3], trial(3, state="RUNNING", score=0.6, curve=[(8_000, 0.6)], evaluation=None)]
    html = search_page(search(found, phase="searching", num_trials=24), pictures=None, best_yaml=None, commands=[])
    page = Page(html)
    refreshes = [attrs for _, attrs in page.elements if attrs.get("http-equiv") == "refresh"]
    assert [attrs["content"] for attrs in refreshes] == ["30"]
    assert "3 of 24 trials ended" in page.text and "running" in page.text
    assert "winner" not in page.text.replace("no winner is named", "")
    finished = Page(search_page())
    assert not [attrs for _, attrs in finished.elements if attrs.get("http-equiv") == "refresh"]


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        (search([], phase="searching", num_trials=8), {"pictures": None, "best_yaml": None}),
        (search([trial(0, state="RUNNING", score=None, curve=[], evaluation=None, samples=0)], phase="searching"), {}),
        (search(phase="confirming"), {}),
        (search([trial(4, state="FAIL", score=None, curve=[], evaluation=None)]), {"pictures": {}}),
        (search([trial(2)]), {}),
        (search([trial(2, "paper")]), {}),
        (search([trial(2), trial(3, state="RUNNING", score=math.nan, curve=[(8_000, math.nan)], evaluation=None)]), {}),
        (search([trial(2, evaluation=None), trial(0, "paper", state="FAIL", score=None, curve=[])]), {}),
        (search([trial(2, evaluation=evaluation(linear_probe=None)), trial(0, "paper")]), {}),
        (search([trial(2, evaluation=evaluation(probe=probe(math.nan, limits=False)), params={})]), {}),
        (search([trial(2, curve=[])], rungs=[]), {}),
        (search(objectives=["mlm", "recon"]), {}),
        (search(importance=IMPORTANCE | {"values": {}, "interactions": []}), {}),
        (search(confirmation=confirmation(differences=[], seed_noise=None, winner=None)), {}),
        (search(), {"pictures": {}}),
        (search(), {"pictures": {2: picture_rows()}, "environment": {}, "commands": []}),
    ],
)
def test_a_search_page_without_some_piece_still_renders(of: Search, changes: dict[str, Any]) -> None:
    page = Page(search_page(of, **changes))
    assert "tune_mam-002" in page.text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)
    assert "NaN" not in json.dumps(page.charts())


def test_a_search_is_the_same_after_a_way_through_json() -> None:
    of = search(json.loads(json.dumps(trials())), confirmation=json.loads(json.dumps(confirmation())))
    assert search_page(of) == search_page(search(confirmation=confirmation()))


def test_a_long_search_has_all_its_trials_on_the_page() -> None:
    of = search(many_trials(200), rungs=[1_777, 5_333, 16_000], log_knobs=["recon.weight", "train.learning_rate"])
    html = search_page(of, pictures={})
    page = Page(html)
    assert len(rows_of(page)) == 200
    assert len(page.attributes("data-trial")) == 200
    # What grows with the trials stays small beside the library that draws.
    assert len(html) < 6_000_000
