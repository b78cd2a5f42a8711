"""The page of a run: complete, and calm about what is missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from mlim_ray.reporting.run_page import data_wait_ratio
from tests.reporting.made_pages import LINEAR, Page, evaluation, metric_lines, probe, run_page, with_accuracy


def test_a_run_page_has_every_figure() -> None:
    page = Page(run_page())
    for figure in ("1,071,234", "2,000", "128,000", "12.8 epochs", "3 min 17 s", "650", "25.0 %", "0.4567"):
        assert figure in page.text, figure
    for at in evaluation()["probe"]["at"]:
        for name, value in at.items():
            digits = 3 if name.startswith("mlm") else 4
            shown = f"{value:.0%}".replace("%", " %") if name == "hidden_ratio" else f"{value:.{digits}f}"
            assert shown in page.text, name
    baselines = LINEAR["baselines"]
    assert isinstance(baselines, Mapping)
    for value in (0.635, 0.823, *baselines.values()):
        assert f"{value:.3f}" in page.text
    for text in (
        "0.0411 \u00b1 0.0012",
        "5.678",
        "0.2345",
        "78 labels",
        "4,000",
        "num_steps: 2000",
        "versions.torch",
    ):
        assert text in page.text, text
    for text in (
        "2.13.0",
        "--out runs/pretrain-003 --resume",
        "red striped bowl",
        "61 %",
        "13 of 16",
        "0.079",
    ):
        assert text in page.text, text


def test_the_way_closed_and_the_ratios_to_paired_are_computed_from_the_losses() -> None:
    text = Page(run_page()).text
    # At 80 %: paired 2.911, shuffled 5.022, blank 4.133, limit 2.244.
    assert "80 % 2.911 5.022 1.73\u00d7 4.133 1.42\u00d7 2.244 65 %" in text


def test_run_curves_have_every_logged_series() -> None:
    charts = Page(run_page()).charts()
    assert {series["name"] for series in charts["curve-mlm"]["data"]} == {"all records", "text heavy"}
    assert {series["name"] for series in charts["curve-recon"]["data"]} == {
        "all records",
        "image heavy",
        "text heavy",
    }
    rate = charts["curve-rate"]["data"][0]
    assert rate["y"][0] is None and rate["y"][1] == 640.0 and rate["x"][-1] == 128_000
    for name in (
        "curve-total",
        "curve-wait",
        "curve-learning-rate",
        "curve-gradient",
        "probe-mlm",
        "probe-recon",
    ):
        assert charts[name]["data"][0]["y"]


def test_a_long_run_is_thinned_and_keeps_its_ends() -> None:
    chart = Page(run_page(metrics=metric_lines(30_000))).charts()["curve-total"]["data"][0]
    assert len(chart["x"]) <= 1_000 and chart["x"][0] == 3_200 and chart["x"][-1] == 3_200 * 30_000


def test_an_encoder_below_raw_pixels_is_said_so() -> None:
    text = Page(run_page()).text
    assert "From the picture alone this encoder is worse than raw pixels (0.635 against 0.692)" in text
    better = Page(run_page(evaluation=with_accuracy(0.75, 0.95))).text
    assert "From the picture alone this encoder is better than raw pixels (0.750 against 0.692)" in better
    assert "is worse than" not in better
    close = Page(run_page(evaluation=with_accuracy(0.69))).text
    assert "does not differ from raw pixels by more than chance would (0.690 against 0.692" in close


def test_an_unused_partner_is_said_so() -> None:
    blind = evaluation()
    for at in blind["probe"]["at"]:
        at["mlm_blank"] = at["mlm_paired"]
    text = Page(run_page(evaluation=blind)).text
    assert "The picture is hardly used" in text and "The title helps to predict hidden cells" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": evaluation(linear_probe=None)},
        {"evaluation": evaluation(linear_probe=LINEAR | {"baselines": None})},
        {"evaluation": evaluation(probe=probe(limits=False))},
        {"evaluation": evaluation(probe=probe(math.nan), seconds=0.0)},
        {"metrics": []},
        {"metrics": [{name: math.nan for name in metric_lines()[-1]}]},
        {"metrics": metric_lines(1)},
        {"pictures": []},
        {"environment": {}},
    ],
    ids=[
        "no linear",
        "no baselines",
        "no limits",
        "nan",
        "no lines",
        "nan lines",
        "one line",
        "no rows",
        "no env",
    ],
)
def test_a_run_page_without_some_piece_still_renders(changes: dict[str, Any]) -> None:
    page = Page(run_page(**changes))
    assert "pretrain-003" in page.text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)
    assert "NaN" not in json.dumps(page.charts())


def test_the_data_wait_share_is_weighted_by_time_and_survives_a_resume() -> None:
    def line(elapsed_s: float, ratio: float) -> dict[str, float]:
        return {"time/elapsed_s": elapsed_s, "time/data_wait_ratio": ratio}

    assert data_wait_ratio([line(10, 0.0), line(40, 0.4)]) == pytest.approx(0.3)
    # After a resume the clock starts anew.
    assert data_wait_ratio([line(30, 0.0), line(10, 0.4)]) == pytest.approx(0.1)
    assert data_wait_ratio([]) is None


def scores_at(step: int, mlm: float) -> dict[str, Any]:
    entries = (("partner probe", "MLM", mlm, False), ("linear probe", "picture only", 1.0 - mlm, True))
    names = ("task", "name", "value", "higher")
    return {"step": step, "failed": None, "scores": [dict(zip(names, entry, strict=True)) for entry in entries]}


def test_a_run_that_was_measured_while_it_trained_shows_every_step() -> None:
    by_step = [scores_at(500, 0.71), {"step": 1_000, "failed": "out of <memory>", "scores": []}, scores_at(2_000, 0.53)]
    page = Page(run_page(evaluation=evaluation(by_step=by_step)))
    assert "While it trained" in page.text
    assert "linear probe picture only higher 0.29 0.47" in page.text
    assert "Step 1,000 could not be evaluated: out of <memory>" in page.text
    (series,) = page.charts()["steps-partner-probe"]["data"]
    assert (series["x"], series["y"]) == ([500, 2_000], [0.71, 0.53])
    assert "While it trained" not in Page(run_page()).text
