"""The page of a search and its verdict: complete, and calm about what is missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from mlim_ray.evaluation.pictures import ReconstructionRow
from mlim_ray.reporting import Search, judge
from tests.reporting.made_pages import (
    BEST_YAML,
    LINEAR,
    Page,
    evaluation,
    picture_rows,
    probe,
    search_page,
    trial,
    trials,
    with_accuracy,
)


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
