"""The comparison of fine-tunings on pairs as a person runs it: whole, and resumed cell by cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mlim_ray.training.run_folder import RunFolder
from tests.experiments.loading import EXPERIMENTS, run_main

pytestmark = pytest.mark.cluster

FLAGS = [
    *("--data", "generated:800", "--steps", "4", "--no-dashboard", "--json", "--model.size", "tiny"),
    *("--train.batch-size", "16", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--pairs.num-train-positives", "12", "--pairs.num-test-positives", "12", "--pairs.num-seeds", "2"),
    *("--pairs.encoding", "siamese", "--pairs.fine-tune.num-epochs", "0.5"),
]


def test_a_comparison_and_its_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    main = run_main(next(path for path in EXPERIMENTS if path.stem == "modality_dropout"))
    assert main([*FLAGS, "--out", "run"]) == 0
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    run = tmp_path / "run"
    cells = {path.name: path for path in (run / "cells").iterdir()}
    assert len(cells) == 2 * 2 * 2 + 1 and "references.json" in cells
    assert all(RunFolder(str(run / f"pretrain-seed-{seed}")).is_finished for seed in (0, 1))
    result = json.loads((run / "evaluation.json").read_text())
    assert result == summary["pairs"] and len(result["arms"]) == 4 and len(result["effects"]) == 6
    assert result["facts"]["num_closeness_attributes"] == 5 and result["facts"]["num_products_in_both"] == 0
    assert "oracle that knows the generator" in result["baselines"]
    assert len(summary["verdict"]) == 7

    # Two cells are lost, one of the others is marked: what is there is not run again, and the rest comes out the same.
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


def test_the_papers_arms_with_itm_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    main = run_main(next(path for path in EXPERIMENTS if path.stem == "modality_dropout"))
    starts = ["--starts.arms", "recon,itm,recon+itm", "--pairs.from-scratch", "false"]
    assert main([*FLAGS, *starts, "--out", "run"]) == 0
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    names = ["pre-trained", "MLM and ITM", "MLM and RECON and ITM"]
    assert [arm["arm"]["start"] for arm in summary["pairs"]["arms"][::2]] == names
    effects = summary["pairs"]["start_effects"]
    assert [(one["start"], one["modality_dropout"]) for one in effects] == [
        (name, dropout) for name in names[1:] for dropout in (False, True)
    ]
    assert sum("against pre-trained" in sentence for sentence in summary["verdict"]) == 4
    for name, losses in (
        ("pretrain", {"mlm", "recon"}),
        ("pretrain-MLM-and-ITM", {"mlm", "recon", "itm"}),
        ("pretrain-MLM-and-RECON-and-ITM", {"mlm", "recon", "itm"}),
    ):
        run = tmp_path / "run" / f"{name}-seed-1"
        line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        logged = {entry.removeprefix("loss/") for entry in line if entry.startswith("loss/") and entry.count("/") == 1}
        assert logged == losses | {"total"}
        detached = yaml.safe_load((run / "config.yaml").read_text())["recon"]["detached"]
        assert detached == (name == "pretrain-MLM-and-ITM")
