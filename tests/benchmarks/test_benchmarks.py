"""The benchmarks run: each at a tiny size, end to end, with a record of what came out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *flags: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("prepare", "feed", "memory", "trial_overhead", "trial_memory", "many_trials"),
        *("search_efficiency", "rank_correlation", "interrupted_search", "plan", "data_wait", "many_nodes"),
        "small_pictures",
    ],
)
def test_each_says_what_it_measures(name: str) -> None:
    said = run(name, "--help")
    assert "Ratios:" in said or "Figures:" in said


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "flags", "key"),
    [
        ("prepare", (), "efficiency"),
        ("feed", ("--ways", "bare,stream"), "summary"),
        ("data_wait", (), "summary"),
        ("trial_overhead", (), "summary"),
        ("many_trials", (), "searches"),
        # A minute or more each.
        pytest.param("feed", ("--ways", "bare,resident,dataloader,train_worker"), "summary", marks=pytest.mark.torture),
        pytest.param("memory", (), "summary", marks=pytest.mark.torture),
        pytest.param("trial_memory", (), "sets", marks=pytest.mark.torture),
        pytest.param("search_efficiency", (), "summary", marks=pytest.mark.torture),
    ],
)
def test_each_runs_at_a_tiny_size(name: str, flags: tuple[str, ...], key: str, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    run(name, "--smoke", "--work", str(tmp_path / "work"), "--out", str(out), *flags)
    record = json.loads(out.read_text())
    assert record[key] and record["command"].startswith(f"python -m benchmarks.{name} ")
    if name in ("memory", "search_efficiency"):
        # What is recorded is not measured again.
        written = record["cells"]
        run(name, "--smoke", "--work", str(tmp_path / "none"), "--out", str(out))
        assert json.loads(out.read_text())["cells"] == written


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.parametrize(("way", "package"), [("webdataset", "webdataset"), ("huggingface", "datasets")])
def test_a_peer_feeds_as_many_records(way: str, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; it comes with the extra bench")
    out = tmp_path / "record.json"
    run("feed", "--smoke", "--ways", f"bare,{way}", "--work", str(tmp_path / "work"), "--out", str(out))
    (found,) = json.loads(out.read_text())["rounds"]
    # 40 batches of 16, but for the last one of an epoch, which peers leave out.
    assert found[way]["records"] == 640 and 0.9 * 640 < found["bare"]["records"] <= 640
