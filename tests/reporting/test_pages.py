"""The pages of a run and of a search: complete, escaped, self-contained, and calm about what is missing."""

from __future__ import annotations

import copy
import io
import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from mlim_ray.evaluation.pictures import Guess, ReconstructionRow, TitlePiece
from mlim_ray.reporting import Search, judge, render_run_page, render_search_page
from mlim_ray.reporting.run_page import data_wait_ratio

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} "\'&'
LINEAR = {
    "num_train": 4_000,
    "num_held_out": 1_024,
    "num_labels": 78,
    "picture_only": 0.635,
    "with_title": 0.823,
    "baselines": {
        "majority": 0.181,
        "raw_pixels": 0.692,
        "pca": 0.638,
        "untrained": 0.551,
        "untrained_with_title": 0.602,
        "text_only": 0.871,
    },
}
ENVIRONMENT = {"versions": {"torch": "2.13.0"}, "python": "3.12.1", "gpu": None, "data": "generated:10000"}
BEST_YAML = "method:\n  masking:\n    kind: mam\n"


class Page(HTMLParser):
    """The elements, their text, and the texts of scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._texts: list[str] = []
        self._inside: str | None = None
        self.feed(html)
        self.text = " ".join(" ".join(self._texts).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles.append(data)
        else:
            self._texts.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(name)) is not None]

    def charts(self) -> dict[str, Any]:
        return json.loads(next(script for script in self.scripts if script.startswith("{")))


def probe(factor: float = 1.0, *, limits: bool = True) -> dict[str, Any]:
    at = [
        {
            "hidden_ratio": ratio,
            "mlm_paired": factor * (2.111 + ratio),
            "mlm_shuffled": factor * (4.222 + ratio),
            "mlm_blank": factor * (3.333 + ratio),
            "recon_paired": factor * (0.0511 + ratio / 100),
            "recon_shuffled": factor * (0.1522 + ratio / 100),
            "recon_blank": factor * (0.0933 + ratio / 100),
            "mlm_limit": 1.444 + ratio if limits else None,
            "recon_limit": 0.0055 if limits else None,
        }
        for ratio in (0.2, 0.5, 0.8, 1.0)
    ]
    return {
        "num_records": 1_024,
        "split": "val",
        "score": 0.4567 * factor,
        "unigram_entropy": 5.678,
        "pixel_variance": 0.2345,
        "at": at,
        "recon_title_limit": [0.0411, 0.0012] if limits else None,
    }


def evaluation(factor: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "steps": 2_000,
        "samples": 128_000,
        "seconds": 197.0,
        "records_per_s": 650.0,
        "num_parameters": 1_071_234,
        "size": "tiny",
        "probe": probe(factor),
        "linear_probe": copy.deepcopy(LINEAR),
    } | changes


def metric_lines(num_lines: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "step": 50 * i,
            "samples": 3_200 * i,
            "epoch": 0.32 * i,
            "loss/total": 6.0 / i,
            "loss/mlm": 5.0 / i,
            "loss/recon": 0.1 / i,
            "loss/mlm/text_heavy": 5.5 / i,
            "loss/recon/image_heavy": 0.2 / i,
            "loss/recon/text_heavy": 0.05 / i,
            "learning_rate": 1e-3 / i,
            "gradient_norm": 1.5,
            "time/data_wait_ratio": 0.25,
            "time/elapsed_s": 5.0 * i,
            **({} if i == 1 else {"time/samples_per_s": 640.0}),
        }
        for i in range(1, num_lines + 1)
    ]


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(out, "png")
    return out.getvalue()


def picture_rows(title: str = "red striped bowl", level: int = 0) -> list[ReconstructionRow]:
    guesses = (Guess("striped", 0.61), Guess("dotted", 0.22), Guess("##plain", 0.05))
    pieces = (
        TitlePiece("red", 0),
        TitlePiece("striped", 1, guesses, 0.61),
        TitlePiece("bowl", 2, guesses, 0.01),
    )
    return [ReconstructionRow(7, title, png(1), png(2), png(3 + level), png(4 + level), 16, 13, 0.0789, 0.0123, pieces)]


def run_page(**changes: Any) -> str:
    content: dict[str, Any] = {
        "title": "pretrain-003",
        "run": "runs/pretrain-003",
        "config": {"train": {"num_steps": 2_000}, "masking": {"kind": "mam"}},
        "environment": ENVIRONMENT,
        "metrics": metric_lines(),
        "evaluation": evaluation(),
        "pictures": picture_rows(),
    }
    return render_run_page(**(content | changes))


def trial(number: int, role: str = "searched", **changes: Any) -> dict[str, Any]:
    score = 0.7 + number / 100
    return {
        "trial": number,
        "role": role,
        "state": "COMPLETE",
        "samples": 24_000,
        "score": score,
        "curve": [(8_000, score + 0.1), (24_000, score)],
        "params": {
            "text_heavy_ratio": 0.5 + number / 50,
            "recon_weight": 10.0 * (number + 1),
            "learning_rate": 1e-3,
        },
        "evaluation": evaluation(1 + number / 10),
    } | changes


def with_accuracy(picture_only: float, with_title: float = 0.8) -> dict[str, Any]:
    return evaluation(linear_probe=LINEAR | {"picture_only": picture_only, "with_title": with_title})


def trials() -> list[dict[str, Any]]:
    return [
        trial(0, "paper", score=0.7612),
        trial(1, "light_only", score=0.8021),
        trial(2, score=0.7406),
        trial(3, state="PRUNED", samples=8_000, score=0.9013, curve=[(8_000, 0.9013)], evaluation=None),
        trial(4, state="FAIL", samples=0, score=None, curve=[], evaluation=None),
    ]


def search_page(found: list[dict[str, Any]] | None = None, **changes: Any) -> str:
    content: dict[str, Any] = {
        "title": "tune_mam-002",
        "search": "runs/tune_mam-002",
        "config": {"search": {"num_trials": 5}},
        "environment": ENVIRONMENT,
        "trials": trials() if found is None else found,
        "winner": 2,
        "verdict": ["Trial 2 is best.", "One seed."],
        "rungs": [8_000, 24_000],
        "pictures": {0: picture_rows(level=10), 2: picture_rows()},
        "best_yaml": BEST_YAML,
        "next_command": "python experiments/pretrain.py --config runs/tune_mam-002/best.yaml",
    }
    return render_search_page(**(content | changes))


BOTH = pytest.mark.parametrize("html", [run_page(), search_page()], ids=["run", "search"])


@BOTH
def test_a_page_asks_for_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    addresses = page.attributes("src") + page.attributes("href") + page.attributes("srcset")
    assert addresses and all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in page.elements)
    assert not re.search(r"@import|url\(", "".join(page.styles))
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; img-src data: blob:;")
    assert "http" not in policy


@BOTH
def test_a_page_draws_its_charts_with_one_inlined_library(html: str) -> None:
    page = Page(html)
    assert html.count(get_plotlyjs()[:2_000]) == 1
    charts = page.charts()
    assert charts and set(charts) <= set(page.attributes("id"))
    assert all(series["type"] == "scatter" for chart in charts.values() for series in chart["data"])
    assert len(html) < 6_000_000


@BOTH
def test_a_page_fits_a_phone(html: str) -> None:
    metas = [attrs.get("content") for tag, attrs in Page(html).elements if tag == "meta"]
    assert "width=device-width, initial-scale=1" in metas


def test_hostile_texts_are_shown_and_not_run() -> None:
    rows = picture_rows(HOSTILE)
    changed = {"title": HOSTILE, "environment": ENVIRONMENT | {"data": HOSTILE}}
    run = run_page(**changed, run=HOSTILE, config={"data": HOSTILE}, pictures=rows)
    search = search_page(
        [trial(2, params={HOSTILE: HOSTILE}), trial(3, params={HOSTILE: "calm"})],
        **changed,
        search=HOSTILE,
        pictures={2: rows},
        verdict=[HOSTILE],
        best_yaml=HOSTILE,
        next_command=HOSTILE,
    )
    for html, clean in ((run, run_page()), (search, search_page())):
        page = Page(html)
        assert [tag for tag, _ in page.elements].count("script") == 3
        assert not page.attributes("onerror")
        assert "{{ 7 * 7 }}" in page.text and "alert(1)" in page.text
        assert len(page.scripts) == len(Page(clean).scripts)


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


def test_a_search_page_has_every_figure() -> None:
    page = Page(search_page())
    rows = [text for text in page.text.split("searched") if text]
    assert len(rows) > 3
    for one in trials():
        for value in one["params"].values():
            assert f"{value:.3g}" in page.text
        if one["score"] is not None:
            assert f"{one['score']:.4f}" in page.text
        if one["evaluation"] is not None:
            at = one["evaluation"]["probe"]["at"][2]
            for side, digits in (("mlm", 3), ("recon", 4)):
                for partner in ("paired", "shuffled", "blank"):
                    assert f"{at[f'{side}_{partner}']:.{digits}f}" in page.text
    for text in (
        "Trial 2 is best.",
        "failed",
        "stopped early",
        "80,000",
        BEST_YAML.split()[1],
        "num_trials: 5",
    ):
        assert text in page.text, text
    assert "python experiments/pretrain.py --config runs/tune_mam-002/best.yaml" in page.text
    baselines = LINEAR["baselines"]
    assert isinstance(baselines, Mapping)
    for value in baselines.values():
        assert f"{value:.3f}" in page.text
    charts = page.charts()
    assert len(charts["curve-score"]["data"]) == 4
    # The learning rate took one value only, so nothing can be read off it.
    assert {"knob-0", "knob-1"} <= set(charts) and "knob-2" not in charts


def test_trials_are_listed_best_first_and_sortable() -> None:
    page = Page(search_page())
    numbers = re.findall(r"<tr class=\"[^\"]*\">\s*<td data-value=\"(\d+)\">", search_page())
    assert numbers == ["2", "0", "1", "3", "4"]
    num_columns = len([attrs for tag, attrs in page.elements if tag == "th" and "data-column" in attrs])
    assert num_columns == 13 + 3
    values = [attrs["data-value"] for tag, attrs in page.elements if tag == "td" and "data-value" in attrs]
    assert len(values) == 5 * num_columns
    # A figure that is missing has no value to sort by.
    assert values[4 * num_columns + 4] == ""


def test_pictures_of_winner_and_reference_are_side_by_side() -> None:
    page = Page(search_page())
    names = [attrs.get("alt") for tag, attrs in page.elements if tag == "img"]
    assert sorted(map(str, names)) == sorted(
        ["input", "masked", "winner", "winner's composite", "paper's setting", "paper's composite"]
    )
    alone = Page(search_page(winner=0))
    assert "it is the paper's setting itself" in alone.text
    assert len([tag for tag, _ in alone.elements if tag == "img"]) == 4


def test_pictures_of_other_records_are_refused() -> None:
    other = [ReconstructionRow(8, *list(vars(picture_rows()[0]).values())[1:])]
    with pytest.raises(ValueError, match="show different records"):
        search_page(pictures={0: other, 2: picture_rows()})


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        ([trial(2)], {}),
        ([trial(2, "paper")], {}),
        (
            [trial(2), trial(3, state="RUNNING", score=math.nan, curve=[(8_000, math.nan)], evaluation=None)],
            {},
        ),
        (
            [
                trial(2, evaluation=None),
                trial(0, "paper", state="FAIL", score=None, curve=[], evaluation=None),
            ],
            {},
        ),
        ([trial(2, evaluation=evaluation(linear_probe=None)), trial(0, "paper")], {}),
        ([trial(2, evaluation=evaluation(probe=probe(math.nan, limits=False)), params={})], {}),
        ([trial(2, curve=[])], {"rungs": []}),
        (None, {"pictures": {}}),
        (None, {"pictures": {2: picture_rows()}}),
        (None, {"environment": {}, "verdict": []}),
    ],
)
def test_a_search_page_without_some_piece_still_renders(found: Any, changes: dict[str, Any]) -> None:
    page = Page(search_page(found, **changes))
    assert "tune_mam-002" in page.text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)
    assert "NaN" not in json.dumps(page.charts())


def test_a_winner_that_did_not_finish_is_refused() -> None:
    with pytest.raises(ValueError, match="trial 3 cannot be the winner; .* score: 2, 0, 1|0, 1, 2"):
        search_page(winner=3)


def test_the_verdict_starts_with_a_disagreement_of_the_scores() -> None:
    found = [
        trial(0, "paper", score=0.76, evaluation=with_accuracy(0.70)),
        trial(2, score=0.74, evaluation=with_accuracy(0.60)),
    ]
    verdict = judge(Search.of(found, 2))
    assert verdict.agreement == "disagrees"
    assert "disagree" in verdict.sentences[0]
    assert "trial 0 (paper's setting) first, 0.700 against the winner's 0.600" in verdict.sentences[1]
    assert "2.6 % below the paper's setting" in verdict.headline
    assert "one seed" in verdict.sentences[-1]
    html = search_page(found, verdict=verdict.sentences)
    assert 'class="box verdict warn"' in html and verdict.sentences[0] in html


@pytest.mark.parametrize(("accuracy", "agreement"), [(0.60, "agrees"), (0.62, "unclear"), (0.70, "disagrees")])
def test_an_accuracy_within_noise_decides_nothing(accuracy: float, agreement: str) -> None:
    found = [
        trial(0, "paper", score=0.76, evaluation=with_accuracy(accuracy)),
        trial(2, score=0.74, evaluation=with_accuracy(0.60)),
    ]
    assert judge(Search.of(found, 2)).agreement == agreement


def test_the_verdict_names_a_reference_that_won_and_one_that_failed() -> None:
    found = [
        trial(0, "paper", score=0.7),
        trial(1, "light_only", state="FAIL", score=None),
        trial(2, score=0.8),
    ]
    verdict = judge(Search.of(found, 0))
    assert verdict.headline == "No searched trial beat the paper's setting, score 0.7000."
    assert [(other.name, other.score) for other in verdict.comparisons] == [
        ("the paper's setting", 0.7),
        ("light-only masking", None),
    ]


def test_the_data_wait_share_is_weighted_by_time_and_survives_a_resume() -> None:
    def line(elapsed_s: float, ratio: float) -> dict[str, float]:
        return {"time/elapsed_s": elapsed_s, "time/data_wait_ratio": ratio}

    assert data_wait_ratio([line(10, 0.0), line(40, 0.4)]) == pytest.approx(0.3)
    # After a resume the clock starts anew.
    assert data_wait_ratio([line(30, 0.0), line(10, 0.4)]) == pytest.approx(0.1)
    assert data_wait_ratio([]) is None
