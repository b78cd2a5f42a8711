"""The page of a search in a real browser: drawn, sorted, filtered, nothing fetched, nothing wider than the window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mlim_ray.reporting.search_figures import Search
from tests.reporting.made_pages import IMPORTANCE, confirmation, many_trials, search, search_page, trials

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = Path(__file__).with_name("browser.js")
OUTER = """<!DOCTYPE html><meta charset="utf-8">
<script>addEventListener("message", (event) => {{ document.querySelector("pre").textContent = event.data; }});</script>
<pre></pre><iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""
DARK = "--blink-settings=preferredColorScheme=0"


def opened(html: str, folder: Path, *flags: str, width: int = 1280) -> dict[str, Any]:
    """What the script saw in the page, in a frame of that width: a window cannot be as narrow as a phone."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    charset = '<meta charset="utf-8">'
    # First in the head, so that nothing happens before it listens.
    (folder / "page.html").write_text(html.replace(charset, f"{charset}<script>{SCRIPT.read_text()}</script>", 1))
    outer = folder / "outer.html"
    outer.write_text(OUTER.format(width=width))
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=20000"),
            *(*flags, "--dump-dom", outer.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = re.search(r"<pre>(.+)</pre>", done.stdout, re.DOTALL)
    assert seen is not None, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(unescape(seen[1]))
    return found


def whole() -> Search:
    """A search with something in every section of its page."""
    found = [
        one | {"objectives": None if one["score"] is None else [one["score"], 1.5 - one["score"]]} for one in trials()
    ]
    return search(found, confirmation=confirmation(), importance=IMPORTANCE, objectives=["mlm", "recon"])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return opened(search_page(whole()), tmp_path_factory.mktemp("page"))


def test_nothing_is_fetched_and_nothing_goes_wrong(seen: dict[str, Any]) -> None:
    assert seen["requests"] == [] and seen["violations"] == [] and seen["errors"] == []


def test_every_chart_is_drawn(seen: dict[str, Any]) -> None:
    assert {"curve-score", "knob-0", "front-0", "probe-mlm", "probe-recon"} <= set(seen["charts"])
    assert all(count > 0 for count in seen["charts"].values()), seen["charts"]
    assert all(abs(excess) <= 1 for excess in seen["chartWidths"])
    assert seen["parallel"] == len(trials())
    assert seen["dots"] == 3 + 3


def test_a_heading_sorts_up_and_down_and_what_is_missing_stays_last(seen: dict[str, Any]) -> None:
    for name, key in (("samples", float), ("role", str), ("score", float)):
        column = seen["sorted"][name]
        assert column["canFocus"]
        orders = dict(column["order"])
        assert set(orders) == {"ascending", "descending"}
        for direction, values in orders.items():
            known = [key(value) for value in values if value != ""]
            assert known == sorted(known, reverse=direction == "descending"), (name, direction)
            assert values[: len(known)].count("") == 0
    assert seen["sorted"]["score"]["order"][0][1][-1] == ""


def test_trials_are_filtered_by_state_role_and_text(seen: dict[str, Any]) -> None:
    filtered = seen["filtered"]
    assert filtered["state"] == {"trials": ["4"], "told": "1 of 5 shown"}
    assert filtered["role"]["trials"] == ["0"]
    # The reason of a failure is found too.
    assert filtered["text"]["trials"] == ["4"]
    assert filtered["both"]["trials"] == ["3"]
    assert filtered["none"]["trials"] == []
    assert sorted(filtered["all"]["trials"]) == ["0", "1", "2", "3", "4"]
    # Kept for when the page of a running search opens itself anew.
    assert seen["kept"]["isAscending"] in (True, False) and seen["kept"]["text"] == ""


def test_a_range_of_an_axis_keeps_the_lines_that_pass_there(seen: dict[str, Any]) -> None:
    assert seen["brushed"] == ["2"]
    assert seen["unbrushed"] == len(trials())


@pytest.mark.parametrize("width", [400, 1280])
def test_a_long_search_is_no_wider_than_the_screen(width: int, tmp_path: Path) -> None:
    of = search(many_trials(60), confirmation=None, importance=IMPORTANCE, rungs=[1_777, 5_333, 16_000])
    found = opened(search_page(of), tmp_path, width=width)
    assert found["width"] == width
    assert found["overflow"] <= 0 and found["wide"] == []
    assert found["errors"] == [] and all(found["charts"].values())


def test_a_confirmed_search_is_no_wider_than_a_phone(tmp_path: Path) -> None:
    found = opened(search_page(whole()), tmp_path, width=400)
    assert found["width"] == 400 and found["overflow"] <= 0 and found["wide"] == []


def test_charts_are_readable_in_the_dark(seen: dict[str, Any], tmp_path: Path) -> None:
    dark = opened(search_page(whole()), tmp_path, DARK)

    def brightness(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness(seen["paper"]) > 200 > 100 > brightness(seen["ink"])
    assert brightness(dark["paper"]) < 60 < 150 < brightness(dark["ink"])


def test_a_search_that_has_just_begun_opens(tmp_path: Path) -> None:
    of = search([], phase="searching", num_trials=8)
    found = opened(search_page(of, pictures=None, best_yaml=None), tmp_path, width=400)
    assert found["errors"] == [] and found["violations"] == [] and found["overflow"] <= 0
    assert found["filtered"]["all"] == {"trials": [], "told": "0 of 0 shown"}
