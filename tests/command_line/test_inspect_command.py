"""`mlim-ray inspect`: its page, its sample, its JSON, and what it refuses before anything is read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.command_line.main import main
from tests.command_line.test_main import refused
from tests.data.pictures import encoded, noise


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    main(["inspect", *argv])
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_a_page_is_written_and_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "pages" / "in.html"
    assert f"page      {page}" in said(capsys, "generated:30", "--html", str(page))
    first = page.read_text()
    assert first.count("<figure>") == 30 and "generated:30" in first
    said(capsys, "generated:31", "--html", str(page), "--image-size", "64")
    assert "generated:31" in page.read_text() and "64 &times; 64" in page.read_text()
    assert [path.name for path in page.parent.iterdir()] == ["in.html"]


def test_only_pages_of_its_own_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.html").write_text("<!DOCTYPE html><title>mine</title>")
    (tmp_path / "folder.html").mkdir()
    for name, problem in (
        ("mine.html", "another file lies there"),
        ("folder.html", "is a folder"),
        ("in.parquet", "expected a file name that ends in .html"),
    ):
        # The source does not even exist: the page's path is looked at first.
        line = refused(capsys, "inspect", "absent", "--html", str(tmp_path / name))
        assert line.startswith(f"--html {tmp_path / name}: ") and problem in line
    assert (tmp_path / "mine.html").read_text() == "<!DOCTYPE html><title>mine</title>"


@pytest.mark.parametrize("sample", ["0", "-3", "many", "1.5"])
def test_a_sample_is_a_whole_number(sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "inspect", "generated:30", "--sample", sample)
    assert line == f"--sample: given {sample}, expected a whole number above 0"


def test_the_json_holds_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    *lines, last = said(capsys, "generated:5000", "--sample", "200", "--json")
    found = json.loads(last)
    assert (found["num_records"], found["num_sampled"], found["num_accepted"]) == (5_000, 200, 200)
    assert sum(found["texts"]["tokens"]["counts"]) == 200 and found["estimate"]["set_bytes"] > 5_000 * 32 * 32 * 3
    assert "accepted_examples" not in found and found["prepared"] is None
    assert any(line.startswith("sample    200 records from 16 places") for line in lines)


def test_the_next_command_has_the_same_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my catalogue"
    folder.mkdir()
    pq.write_table(pa.table({"p": [encoded(noise())], "about": ["one"]}), folder / "a.parquet")
    flags = ["--image-column", "p", "--text-column", "about", "--background-colour", "1,2,3", "--max-tokens", "9"]
    line = said(capsys, str(folder), *flags)[-1]
    words = shlex.split(line.removeprefix("next "))
    assert words[:4] == ["mlim-ray", "prepare", str(folder), "prepared/"]
    assert sorted(words[4:]) == sorted(flags)


def test_a_source_without_one_good_record_is_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": [b"<html>"] * 9, "text": ["t"] * 9}), tmp_path / "in" / "a.parquet")
    lines = said(capsys, str(tmp_path / "in"), "--html", str(tmp_path / "page.html"))
    assert "rejected  9 of 9: unreadable_picture 9" in lines
    assert any(line.startswith("hint      no record of the sample would be accepted") for line in lines)
    assert (tmp_path / "page.html").read_text().count("unknown format") >= 9
