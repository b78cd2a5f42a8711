"""The comparison of fine-tunings on pairs as a person runs it: whole, and resumed cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlim_ray.training.run_folder import RunFolder
from tests.experiments.loading import EXPERIMENTS, run_main

pytestmark = [pytest.mark.cluster, pytest.mark.long]

FLAGS = [
    *("--data", "generated:800", "--steps", "4", "--no-dashboard", "--json", "--model.size", "tiny"),
    *("--train.batch-size", "16", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--pairs.num-train-positives", "12", "--pairs.num-test-positives", "12", "--pairs.num-seeds", "2"),
    *("--pairs.encoding", "siamese", "--pairs.fine-tune.num-epochs", "0.5"),
]


STARTS = {
    "pre-trained": ("pretrain", {"mlm", "recon"}),
    "MLM and ITM": ("pretrain-MLM-and-ITM", {"mlm", "recon", "itm"}),
    "MLM and RECON and ITM": ("pretrain-MLM-and-RECON-and-ITM", {"mlm", "recon", "itm"}),
}
"""the folder of each pre-training, and the losses that it logs"""


def test_a_comparison_of_the_papers_arms_and_its_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    main = run_main(next(path for path in EXPERIMENTS if path.stem == "modality_dropout"))
    assert main([*FLAGS, "--starts.arms", "recon,itm,recon+itm", "--out", "run"]) == 0
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    run = tmp_path / "run"
    cells = {path.name: path for path in (run / "cells").iterdir()}
    assert len(cells) == 4 * 2 * 2 + 1 and "references.json" in cells
    result = json.loads((run / "evaluation.json").read_text())
    assert result == summary["pairs"] and len(result["arms"]) == 8 and len(result["effects"]) == 12
    assert result["facts"]["num_closeness_attributes"] == 5 and result["facts"]["num_products_in_both"] == 0
    assert "oracle that knows the generator" in result["baselines"]
    check_starts(run, result, summary["verdict"])

    # Two cells are lost, what is there is not run again, and the rest comes out the same.
    (run / "evaluation.json").unlink()
    lost = ["pre-trained_siamese_with-dropout_seed-1.json", "from-scratch_siamese_without-dropout_seed-0.json"]
    before = {name: path.read_text() for name, path in cells.items()}
    for name in lost:
        cells[name].unlink()
    times = {name: path.stat().st_mtime_ns for name, path in cells.items() if name not in lost}
    assert main(["--out", "run", "--resume", "--no-dashboard", "--json"]) == 0
    assert times == {name: cells[name].stat().st_mtime_ns for name in times}
    assert before == {name: path.read_text() for name, path in cells.items()}
    assert json.loads((run / "evaluation.json").read_text()) == result


def check_starts(run: Path, result: dict[str, Any], verdict: list[str]) -> None:
    """Every start was pre-trained with its own losses, and is told against the first."""
    assert [arm["arm"]["start"] for arm in result["arms"][::2]] == [*STARTS, "from scratch"]
    assert [(one["start"], one["modality_dropout"]) for one in result["start_effects"]] == [
        (name, dropout) for name in [*list(STARTS)[1:], "from scratch"] for dropout in (False, True)
    ]
    assert sum("against pre-trained" in sentence for sentence in verdict) == 6
    for name, (folder, losses) in STARTS.items():
        assert all(RunFolder(str(run / f"{folder}-seed-{seed}")).is_finished for seed in (0, 1))
        trained = run / f"{folder}-seed-1"
        line = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
        logged = {entry.removeprefix("loss/") for entry in line if entry.startswith("loss/") and entry.count("/") == 1}
        assert logged == losses | {"total"}
        detached = yaml.safe_load((trained / "config.yaml").read_text())["recon"]["detached"]
        assert detached == (name == "MLM and ITM")
