"""The page and the lines of an inspection: complete, escaped, self-contained and small."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.inspection import Inspection, inspect
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.reporting.inspection_lines import inspection_lines
from mlim_ray.reporting.inspection_page import MARK, render_inspection_page
from mlim_ray.reporting.quantities import data_size, rough_time
from tests.data.inspection.bad_pictures import BAD
from tests.data.pictures import encoded, noise
from tests.prepared_sets import source_records, write_prepared
from tests.reporting.test_pages import HOSTILE, Page

COMMAND = "mlim-ray prepare somewhere prepared/"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write(folder: Path, **columns: Any) -> str:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return str(folder)


def inspected(source: str, num_sampled: int = 1_000, num_examples: int = 60, **knobs: Any) -> Inspection:
    config = resolve_prepare_config(PrepareConfig.model_validate(knobs), 32)
    return inspect(source, config, num_sampled, num_examples=num_examples)


def hostile_source(folder: Path) -> str:
    """Every text that a source can hold, hostile; bad pictures and an odd split among them."""
    images = [encoded(noise(20, 20, i)) for i in range(30)] + [image for image, _ in BAD.values()] + [b"", b""]
    count = len(images)
    return write(
        folder,
        **{
            "id": [f"{HOSTILE} {i % (count - 3)}" for i in range(count)],
            "image": pa.array(images, pa.binary()),
            "text": [HOSTILE, "\u202eabc\u0000def", "long " * 1_000] * (count // 3) + ["t"] * (count % 3),
            "label": [HOSTILE] * count,
            "group_id": [HOSTILE] * count,
            "split": ["train"] * 20 + ["val"] * (count - 21) + [HOSTILE],
            HOSTILE: [1] * count,
        },
    )


def page_of(found: Inspection) -> Page:
    return Page(render_inspection_page(found, COMMAND))


def test_a_page_asks_for_nothing_outside_itself_and_runs_nothing_of_the_data(tmp_path: Path) -> None:
    found = inspected(hostile_source(tmp_path / HOSTILE.replace("/", "-")))
    html = render_inspection_page(found, HOSTILE)
    page, calm = Page(html), page_of(inspected("generated:50"))
    addresses = page.attributes("src") + page.attributes("href") + page.attributes("srcset")
    assert all(re.match(r"data:image/(png|jpeg);base64,|#", address) for address in addresses)
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in page.elements)
    assert not re.search(r"@import|url\(", "".join(page.styles))
    assert page.scripts == calm.scripts and page.styles == calm.styles
    assert not page.attributes("onerror") and not any(tag == "b" and attrs for tag, attrs in page.elements)
    assert page.text.count("{{ 7 * 7 }}") > 60 and "\u202e" not in html and "\x00" not in html
    for _, attrs in page.elements:
        assert not any(name.startswith("on") or name in ("{{", "7", "alert(1)") for name in attrs)


def test_a_page_shows_every_example_with_its_picture(tmp_path: Path) -> None:
    found = inspected(hostile_source(tmp_path / "in"))
    page = page_of(found)
    shown = [*found.accepted_examples, *found.rejected_examples]
    assert [tag for tag, _ in page.elements].count("figure") == len(shown)
    assert [tag for tag, _ in page.elements].count("img") == sum(one.thumbnail is not None for one in shown)
    assert len(found.accepted_examples) == found.num_accepted and len(found.rejected_examples) == len(BAD) + 2
    for one in found.rejected_examples:
        assert one.detail in page.text and one.reason is not None and one.reason in page.text


def test_a_page_has_every_figure(tmp_path: Path) -> None:
    found = inspected(hostile_source(tmp_path / "in"))
    text = page_of(found).text
    assert found.texts is not None and found.estimate is not None
    for figure in (
        f"Of a sample of {found.num_sampled} records {found.num_sampled - found.num_accepted}",
        found.source,
        data_size(found.num_bytes or 0),
        data_size(found.estimate.set_bytes),
        data_size(found.estimate.peak_bytes),
        rough_time(found.estimate.seconds),
        f"{found.texts.num_cut_tokens} beyond --max-tokens 24 will be cut",
        f"{found.texts.vocab_size} pieces",
        f"up to {found.pictures.most_extreme}",
        f"{found.num_groups} groups, {found.num_groups_across} of them in several splits",
        COMMAND,
        *(f"{kind} {count}" for kind, count in found.pictures.kinds.items()),
        *(f"{size} {count}" for size, count in list(found.pictures.sizes.items())[:8]),
        *found.splits,
        *(rejection.detail for rejection in found.rejections),
        *(" ".join(hint.split()) for hint in found.hints),
    ):
        assert figure in text, figure


def test_histograms_are_drawn_from_the_counts() -> None:
    found = inspected("generated:400")
    assert found.texts is not None
    html = render_inspection_page(found, COMMAND)
    (drawn,) = re.findall(r"<h3>Words</h3>(.*?)</div>\s*</div>\s*</div>", html, re.DOTALL)
    titles = re.findall(r'title="(\d+): (\d+)"', drawn)
    words = found.texts.words
    assert [(int(low), int(count)) for low, count in titles] == list(zip(words.edges, words.counts, strict=False))
    heights = [float(height) for height in re.findall(r"height: ([\d.]+)%", drawn)]
    assert heights == [round(100 * count / max(words.counts), 1) for count in words.counts]


def test_bars_beyond_the_limit_stand_out(tmp_path: Path) -> None:
    texts = [" ".join(["word"] * (i + 1)) for i in range(40)]
    found = inspected(write(tmp_path / "in", image=[encoded(noise(40, 40))] * 40, text=texts), max_tokens=12)
    assert found.texts is not None and found.texts.num_cut_tokens == 30
    classes = [attrs.get("class") or "" for tag, attrs in page_of(found).elements if tag == "div"]
    assert sum("beyond" in name for name in classes) == 15
    assert "beyond" not in render_inspection_page(inspected("generated:20"), COMMAND).partition("</style>")[2].replace(
        "none beyond", ""
    )


def test_a_page_stays_small_whatever_it_shows(tmp_path: Path) -> None:
    images = [encoded(noise(300, 200, i), "JPEG") for i in range(200)]
    texts = ["x" * 5_000] * 100 + [" "] * 100
    source = write(tmp_path / "in", image=images, text=texts, label=[f"{i} " + "l" * 900 for i in range(200)])
    found = inspected(source, image_size=256)
    assert len(found.accepted_examples) == len(found.rejected_examples) == 60
    assert len(render_inspection_page(found, COMMAND)) < 2_500_000


def test_a_page_adapts_to_light_and_dark() -> None:
    page = page_of(inspected("generated:20"))
    metas = {attrs.get("name"): attrs.get("content") for tag, attrs in page.elements if tag == "meta"}
    assert metas["color-scheme"] == "light dark" and metas["generator"] == "mlim_ray inspect"
    assert "prefers-color-scheme: dark" in page.styles[0]
    assert MARK in render_inspection_page(inspected("generated:20"), COMMAND)[:2_000]


def test_sources_without_some_piece_still_render(tmp_path: Path) -> None:
    nothing = write(tmp_path / "nothing", image=["none.png"] * 5, text=["t"] * 5)
    prepared = write_prepared(tmp_path, source_records(70)).path
    one = write(tmp_path / "one", image=[encoded(noise())], text=["one"])
    for source in (nothing, prepared, one, "generated:2000"):
        found = inspected(source, 100)
        for shown in (found, replace(found, accepted_examples=(), rejected_examples=())):
            page = page_of(shown)
            assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text), source
        assert all(line.isprintable() for line in inspection_lines(found))
    assert "No record of the sample would be accepted." in page_of(inspected(nothing)).text
    assert "counts.accepted 70" in page_of(inspected(prepared)).text


def test_lines_are_printable_whatever_the_data_holds(tmp_path: Path) -> None:
    lines = inspection_lines(inspected(hostile_source(tmp_path / "in\n\x1b[31m")))
    assert all(line.isprintable() for line in lines)
    assert all(len(line) < 1_500 for line in lines)


def test_lines_say_what_a_count_comes_to_in_all() -> None:
    found = inspected("generated:5000", 500)
    lines = inspection_lines(found)
    (splits,) = (line for line in lines if line.startswith("splits"))
    assert f"train {found.splits['train']} (about {10 * found.splits['train']:,})" in splits
    everything = inspection_lines(inspected("generated:300"))
    assert not any("about" in line for line in everything if line.startswith(("splits", "labels", "  ")))


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 KB"),
        (999_499, "999 KB"),
        (1_500_000, "1.5 MB"),
        (2e15, "2,000 TB"),
    ],
)
def test_bytes_are_said_in_the_unit_that_fits(num_bytes: float, said: str) -> None:
    assert data_size(num_bytes) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (75, "75 s"), (900, "15 min"), (9_000, "2.5 h")])
def test_times_are_said_roughly(seconds: float, said: str) -> None:
    assert rough_time(seconds) == said


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_opens_a_hostile_page_and_runs_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = inspected(hostile_source(tmp_path / "in"))
    page.write_text(render_inspection_page(found, COMMAND))
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2400"),
            *(f"--screenshot={tmp_path / 'page.png'}", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    seen = Page(done.stdout)
    assert [tag for tag, _ in seen.elements].count("figure") == len(found.accepted_examples) + len(
        found.rejected_examples
    )
    assert [tag for tag, _ in seen.elements].count("script") == 3 and not seen.attributes("onerror")
