"""What every page keeps: self-contained, escaped, and readable on a phone."""

from __future__ import annotations

import re

import pytest
from plotly.offline import get_plotlyjs

from mlim_ray.reporting.figures import Command
from tests.reporting.made_pages import (
    ENVIRONMENT,
    HOSTILE,
    Page,
    picture_rows,
    run_page,
    search,
    search_page,
    trial,
)

BOTH = pytest.mark.parametrize("html", [run_page(), search_page()], ids=["run", "search"])


@BOTH
def test_a_page_asks_for_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    addresses = page.attributes("src") + page.attributes("href") + page.attributes("srcset")
    assert addresses and all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in page.elements)
    assert not re.search(r"@import|url\(", "".join(page.styles))
    policy = next(
        attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy"
    )
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
    found = search_page(
        search(
            [
                trial(2, params={HOSTILE: HOSTILE, "policy": HOSTILE}),
                trial(3, params={HOSTILE: "calm", "policy": "mam"}),
                trial(4, state="FAIL", score=None, curve=[], evaluation=None, reason=HOSTILE),
            ],
            objectives=[HOSTILE, "recon"],
            importance={"evaluator": HOSTILE, "measured_on": HOSTILE, "values": {HOSTILE: 0.5}},
        ),
        **changed,
        folder=HOSTILE,
        pictures={2: rows},
        best_yaml=HOSTILE,
        commands=[Command(HOSTILE, HOSTILE)],
    )
    for html, clean in ((run, run_page()), (found, search_page())):
        page = Page(html)
        assert [tag for tag, _ in page.elements].count("script") == 3
        assert not page.attributes("onerror")
        assert "{{ 7 * 7 }}" in page.text and "alert(1)" in page.text
        assert len(page.scripts) == len(Page(clean).scripts)
