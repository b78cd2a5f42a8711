"""The comparison of masking settings as a person runs it: killed in the middle, resumed, and finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mlim_ray.command_line.main import main as mlim_ray
from mlim_ray.pipelines.signals import RESUMABLE
from tests.experiments.loading import EXPERIMENTS, run_main

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = next(path for path in EXPERIMENTS if path.stem == "compare_masking")
NUM_STEPS = 30
FLAGS = [
    *("--data", "generated:300,generated:301", "--steps", str(NUM_STEPS), "--no-dashboard", "--model.size", "tiny"),
    *("--train.batch-size", "16", "--train.log-every-steps", "5", "--train.checkpoint-every-steps", "5"),
    *("--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--compare.arms", "mam,independent-50", "--compare.num-seeds", "2", "--out", "run"),
    *("--tasks", "partner"),
]


def ended_cells(run: Path) -> dict[Path, int]:
    """When the evaluation of every cell that ended was written."""
    return {path: path.stat().st_mtime_ns for path in run.glob("*/cells/*/evaluation.json")}


def stop_after_first_cell(folder: Path) -> None:
    """Start the experiment, and tell it to stop once a cell has ended and before all have."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (folder / "first.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(EXPERIMENT), *FLAGS],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while not ended_cells(folder / "run") and process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == RESUMABLE


def test_a_comparison_that_is_stopped_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    stop_after_first_cell(tmp_path)
    told = (tmp_path / "first.log").read_text()
    before = ended_cells(tmp_path / "run")
    assert 1 <= len(before) < 8, told
    assert "Traceback" not in told
    assert "continue with: python experiments/compare_masking.py --out run --resume" in told

    main = run_main(EXPERIMENT)
    assert main(["--out", "run", "--resume", "--no-dashboard", "--json"]) == 0
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    after = ended_cells(tmp_path / "run")
    assert len(after) == 8 and {path: after[path] for path in before} == before
    assert {path.parents[2].name for path in after} == {"1-generated-300", "2-generated-301"}
    # All cells of a source share one set; every one took all its steps, those that were cut short once.
    assert len(list((tmp_path / "run" / "prepared").iterdir())) == 2
    for path in after:
        lines = (path.parent / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(5, NUM_STEPS + 1, 5))

    results = json.loads((tmp_path / "run" / "evaluation.json").read_text())["results"]
    assert list(results) == ["on generated:300", "on generated:301"] and summary["results"] == results
    for result in results.values():
        measures = result["result"]["measures"]
        assert {len(one["values"]["mam"]) for one in measures} == {2}
        assert [one["name"] for one in measures][:4] == ["MLM", "RECON", "picture only", "with title"]
        assert {one["task"].partition(" on ")[0] for one in measures[4:]} == {"partner"}
        assert len(result["verdict"]) >= 8
    page = (tmp_path / "run" / "report.html").read_text()
    assert "on generated:301" in page and 'class="intervals"' in page

    cells = [str(path.parent) for path in list(after)[:2]]
    mlim_ray(["compare", *cells, "--out", "page.html"])
    assert "partner probe" in capfd.readouterr().out and (tmp_path / "page.html").exists()
    assert main(["--out", "run", "--resume", "--no-dashboard"]) == 0
    assert "is finished already" in capfd.readouterr().out
