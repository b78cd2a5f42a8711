"""`mlim-ray compare`: runs beside each other, as lines, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlim_ray.command_line.main import main
from tests.command_line.test_main import refused
from tests.evaluation.made_scores import made_evaluation, made_task
from tests.made_runs import run_config, train_run
from tests.reporting.made_pages import Page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one of them evaluated on a source, and one that is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    for name, mlm, seed in (("one", 3.0, 0), ("two", 2.4, 1)):
        run = train_run(folder / name, run_config(seed=seed))
        found: dict[str, Any] = {"evaluations": {"my <shop>": {"tasks": {"told": made_task()}}}} if seed else {}
        (run / "evaluation.json").write_text(json.dumps(made_evaluation(mlm, **found)))
    train_run(folder / "slow", run_config(log_every_steps=4), stop_step=9, manifest_sha256="b" * 64)
    return folder


def compare(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    main(["compare", *map(str, argv)])
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_knobs_that_differ_and_scores(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = compare(capsys, runs / "one", runs / "two", runs / "slow", "--json")
    found = json.loads(out.splitlines()[-1])
    states = {row["run"]: row["state"] for row in found["runs"]}
    assert states == {
        "one": "finished, 12 steps",
        "two": "finished, 12 steps",
        "slow": "unfinished, step 8 of 12",
    }
    assert found["configuration"] == [{"knob": "train.seed", "one": "0", "two": "1", "slow": "0"}]
    assert found["configuration, of no consequence"] == [
        {"knob": "train.log_every_steps", "one": "2", "two": "2", "slow": "4"}
    ]
    rows = {(row["measured by"], row["figure"]): row for row in found["scores"]}
    mlm = rows["partner probe", "MLM (lower is better)"]
    assert (mlm["one"], mlm["two"], mlm["slow"]) == (pytest.approx(0.5), pytest.approx(0.4), None)
    assert rows["linear probe", "- raw pixels"]["two"] == 0.69
    assert rows["told on my <shop>", "this encoder: accuracy (higher is better)"]["one"] is None
    assert rows["told on my <shop>", "this encoder: accuracy (higher is better)"]["two"] == 0.6
    assert "2 different prepared sets" in out and "train.seed" in out


def test_runs_of_one_name_are_told_apart(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_run(tmp_path / "one", run_config())
    out = compare(capsys, runs / "one", tmp_path / "one", "--json")
    found = json.loads(out.splitlines()[-1])
    assert [row["run"] for row in found["runs"]] == [f"{runs.name}/one", f"{tmp_path.name}/one"]
    assert found["configuration"] == [] and "same prepared set" in out


def test_the_page_has_a_curve_of_every_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.html"
    for _ in range(2):
        compare(capsys, runs / "one", runs / "two", runs / "slow", "--out", path)
    text = path.read_text()
    page = Page(text)
    charts = page.charts()
    assert [line["name"] for line in charts["curve-0"]["data"]] == ["one", "two", "slow"]
    logged = [json.loads(line) for line in (runs / "slow" / "metrics.jsonl").read_text().splitlines()]
    assert charts["curve-0"]["data"][2]["x"] == [line["samples"] for line in logged]
    assert set(page.attributes("id")) >= set(charts)
    assert "my &lt;shop&gt;" in text and "my <shop>" not in text and "unfinished, step 8 of 12" in text


def test_what_cannot_be_compared(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(runs / "one")
    assert "expected two or more different run folders" in refused(capsys, "compare", one)
    assert "expected two or more different run folders" in refused(capsys, "compare", one, f"{one}/")
    assert f"{tmp_path} holds no run: it has no config.yaml" in refused(capsys, "compare", one, str(tmp_path))
    other = tmp_path / "thesis.html"
    other.write_text("precious")
    both = (one, str(runs / "two"), "--out")
    assert "only pages of compare are replaced" in refused(capsys, "compare", *both, str(other))
    assert "expected a file name that ends in .html" in refused(capsys, "compare", *both, str(tmp_path / "page"))
    assert other.read_text() == "precious"
