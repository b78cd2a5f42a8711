"""The comparison of recipes as a person runs it: tuned, compared, with its costs, and nothing done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mlim_ray.config.files import parse_config
from mlim_ray.config.recipes_run import RecipesRunConfig
from tests.experiments.loading import EXPERIMENTS, run_main

pytestmark = [pytest.mark.cluster, pytest.mark.long]

EXPERIMENT = next(path for path in EXPERIMENTS if path.stem == "compare_recipes")
FLAGS = [
    *("--data", "generated:300", "--steps", "6", "--no-dashboard", "--model.size", "tiny", "--json"),
    *("--train.batch-size", "16", "--train.log-every-steps", "3", "--train.checkpoint-every-steps", "3"),
    *("--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--compare.arms", "mlim,m3ae_medical,eve_style", "--compare.num-seeds", "2", "--out", "run"),
    *("--compare.learning-rates", "0.5,1", "--compare.tuning-steps", "4"),
]


def test_recipes_are_tuned_and_compared_and_no_cell_is_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    main = run_main(EXPERIMENT)
    assert main(FLAGS) == 0
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    run = tmp_path / "run"
    cells = {path: path.stat().st_mtime_ns for path in run.glob("*/cells/*/evaluation.json")}
    assert len(cells) == 3 * 2 + 3 * 2
    results = summary["results"]
    assert list(results) == ["learning rates", "recipes", "costs"]

    scores = results["learning rates"]["result"]["scores"]
    stored = parse_config((run / "2-recipes" / "config.yaml").read_bytes(), "config.yaml", RecipesRunConfig())
    assert stored.compare.arms == tuple(
        f"{recipe}@{min(of_recipe, key=of_recipe.__getitem__)}" for recipe, of_recipe in scores.items()
    )
    for path in cells:
        cell = json.loads(path.read_text())
        assert cell["steps"] == (4 if "1-tuning" in str(path) else 6)
    measures = results["recipes"]["result"]["measures"]
    assert {len(values) for one in measures for values in one["values"].values()} == {2}
    assert [one["name"] for one in measures][:2] == ["MLM", "RECON"]
    costs = {one["name"]: one for one in results["costs"]["result"]["recipes"]}
    sizes = [recipe["num_parameters"] for recipe in costs.values()]
    assert max(sizes) < 1.1 * min(sizes) and results["costs"]["verdict"][0] == "parameters differ by 10 % at most"
    assert costs["m3ae_medical"]["gflops_per_record"] > costs["mlim"]["gflops_per_record"] > 0
    assert "What it costs" in (run / "report.html").read_text()

    # As a kill in the midst of the comparison leaves it.
    gone = next(path for path in sorted(cells) if "2-recipes" in str(path))
    shutil.rmtree(gone.parent)
    for name in ("report.html", "evaluation.json"):
        (run / name).unlink()
    assert main(["--out", "run", "--resume", "--no-dashboard"]) == 0
    capfd.readouterr()
    again = {path: path.stat().st_mtime_ns for path in run.glob("*/cells/*/evaluation.json")}
    assert again.keys() == cells.keys()
    assert {path for path in cells if cells[path] != again[path]} == {gone}
