"""The page of the demo in a real browser: what is dropped and typed is answered, nothing else is asked, nothing is
wider than the window."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlim_ray.reporting.demo_server import DemoServer
from tests.data.pictures import encoded, noise
from tests.exported_runs import write_exported_run
from tests.reporting.chromium import CHROMIUM, Tab, opened
from tests.reporting.demo_servers import demo_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]

ROOT = Path(__file__).resolve().parents[2]
ANSWERED = "!document.getElementById('answer').hidden && !document.getElementById('ask').disabled"
REFUSED = "!document.getElementById('error').hidden && !document.getElementById('ask').disabled"
WIDER = """(() => {
  const beyond = (part) => part.getBoundingClientRect().right > innerWidth + 1;
  const wide = [...document.querySelectorAll("body *")].filter(beyond).map((part) => part.outerHTML.slice(0, 80));
  return document.documentElement.scrollWidth > innerWidth ? ["the page", ...wide] : wide;
})()"""
HOSTILE = "<img src=x onerror=document.title='bad'>" + "w" * 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with demo_of(tmp_path_factory.mktemp("run"), "runs/pretrain-001") as made:
        yield made


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "shoe.png"
    path.write_bytes(encoded(noise(60, 40)))
    return path


async def text_of(tab: Tab, selector: str) -> str:
    found: str = await tab.run(f"document.querySelector({selector!r}).innerText")
    return found


def brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1280, True)])
def test_a_picture_and_a_title_are_answered(
    server: DemoServer, picture: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    async def scenario() -> None:
        async with opened(server.url, tmp_path, width=width, dark=dark) as tab:
            await tab.choose("#file", picture)
            await tab.until("document.getElementById('preview').naturalWidth === 60")
            await tab.write("#text", "red [MASK] bowl", enter=True)
            await tab.until(ANSWERED)
            assert await tab.run("document.querySelectorAll('#words .guess').length") == 10
            assert "with the picture" in await text_of(tab, "#words")
            names = await tab.run("[...document.querySelectorAll('#pictures b')].map((name) => name.textContent)")
            assert names == ["input", "hidden", "reconstruction", "composite", "from the title alone"]
            await tab.until("[...document.querySelectorAll('main img')].every((one) => one.complete)")
            assert await tab.run("[...document.querySelectorAll('main img')].every((one) => one.naturalWidth > 0)")
            assert await tab.run("[...document.querySelectorAll('main img')].every((one) => one.alt)")
            assert await tab.run("document.querySelectorAll('#neighbours figure').length") == 8
            assert await tab.run(WIDER) == []
            paper, ink = await tab.run(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
            assert (brightness(paper) < 60 < 150 < brightness(ink)) if dark else (brightness(paper) > 200)
            own = [url for url in tab.requests if not url.startswith(("data:", "blob:"))]
            assert set(own) == {server.url, f"{server.url}ask"} and tab.problems == []
            await tab.screenshot(tmp_path / "page.png")

    asyncio.run(scenario())


def test_a_dropped_picture_other_cells_and_taking_it_away(server: DemoServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(server.url, tmp_path) as tab:
            await tab.run(
                """new Promise((done) => {
                  const canvas = document.createElement("canvas");
                  canvas.width = canvas.height = 20;
                  canvas.getContext("2d").fillRect(0, 0, 20, 10);
                  canvas.toBlob((blob) => {
                    const carried = new DataTransfer();
                    carried.items.add(new File([blob], "dropped.png"));
                    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
                    done();
                  });
                })"""
            )
            await tab.run("document.getElementById('ask').click()")
            await tab.until(ANSWERED)
            assert "No title was given" in await text_of(tab, "#words-caption")
            hidden = "document.querySelectorAll('#pictures img')[1].src"
            first = await tab.run(hidden)
            await tab.run("document.getElementById('other').click()")
            await tab.until(f"{ANSWERED} && {hidden} !== {first!r}")
            await tab.run("document.getElementById('clear').click()")
            assert not await tab.run("document.getElementById('preview').hasAttribute('src')")
            await tab.write("#text", "red bowl", enter=True)
            await tab.until(f"{ANSWERED} && document.querySelectorAll('#pictures img').length === 1")
            assert await text_of(tab, "#pictures b") == "from the title alone"
            assert tab.problems == []

    asyncio.run(scenario())


def test_what_is_wrong_is_said_on_the_page(server: DemoServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(server.url, tmp_path, width=400) as tab:
            await tab.run("document.getElementById('ask').click()")
            await tab.until(REFUSED)
            assert "neither a picture nor a title is given" in await text_of(tab, "#error")
            notes = tmp_path / "notes.txt"
            notes.write_text("no picture")
            await tab.choose("#file", notes)
            await tab.run("document.getElementById('ask').click()")
            await tab.until(f"{REFUSED} && document.getElementById('error').innerText.includes('the picture cannot')")
            large = tmp_path / "large.png"
            with large.open("wb") as file:
                file.truncate(20_000_001)
            await tab.choose("#file", large)
            await tab.until("document.getElementById('error').innerText.includes('20,000,001 bytes')")
            assert await tab.run("document.getElementById('preview').hidden")
            # What a title holds is shown as it stands, and never becomes a part of the page.
            await tab.write("#text", HOSTILE, enter=True)
            await tab.until(ANSWERED)
            assert "<img" in await text_of(tab, "#words") and await tab.run("document.title") != "bad"
            assert await tab.run(WIDER) == []

    asyncio.run(scenario())


def test_the_command_serves_until_it_is_ended(tmp_path: Path) -> None:
    run = write_exported_run(tmp_path / "run")
    words = ["demo", str(run), "--neighbours", "generated:100", "--sample", "30", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlim_ray.command_line.main", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )

    async def scenario() -> None:
        assert process.stdout is not None
        url = next(found[1] for line in process.stdout if (found := re.search(r"demo: (http://\S+)", line)))
        async with opened(url, tmp_path) as tab:
            await tab.write("#text", "red bowl", enter=True)
            await tab.until(ANSWERED)
            assert "The nearest of 30 records of generated:100" in await text_of(tab, "#neighbours-caption")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            await tab.write("#text", "red", enter=True)
            await tab.until(REFUSED)
            assert "is mlim-ray demo still running?" in await text_of(tab, "#error")

    try:
        asyncio.run(scenario())
    finally:
        process.kill()
        process.communicate()
