"""The benchmarks of the training step run, the one for a GPU without any package that it does not name."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from benchmarks.in_memory import TITLES, Workload
from benchmarks.step_ways import WAYS, make_way
from mlim_ray.training.tensors import to_tensors

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("torch", "transformers", "pydantic", "pyarrow", "pillow")


def run(name: str, *flags: str, python: Path | str = sys.executable) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "PYTHONPATH")}
    done = subprocess.run(
        [str(python), "-m", f"benchmarks.{name}", *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_all_it_brings(names: tuple[str, ...]) -> set[str]:
    """Distributions and what they require without extras, as far as it is installed."""
    found, waiting = set[str](), [*names]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [re.match(r"[\w.-]+", line)[0] for line in required if "extra ==" not in line]
    return found


def make_environment(folder: Path) -> Path:
    """The Python of an environment that has only what a GPU machine is asked to have."""
    venv.create(folder / "venv", symlinks=True)
    links = folder / "links"
    links.mkdir()
    for name in with_all_it_brings(NEEDED):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            (links / top).symlink_to(distribution.locate_file(top))
    (site_packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (site_packages / "links.pth").write_text(f"{links}\n")
    return folder / "venv" / "bin" / "python"


@pytest.mark.slow
def test_the_gpu_benchmark_runs_where_little_is_installed(tmp_path: Path) -> None:
    python, out = make_environment(tmp_path), tmp_path / "record.json"
    missing = "import importlib.util; print([n for n in ('ray', 'optuna', 's3fs') if importlib.util.find_spec(n)])"
    assert subprocess.run([python, "-c", missing], capture_output=True, text=True).stdout.strip() == "[]"
    printed = run("gpu_step", "--smoke", "--out", str(out), python=python)
    record = json.loads(out.read_text())
    assert [line["batch"] for line in record["lines"]] == [4, 8]
    for line in record["lines"]:
        assert line["samples_per_s"] > 0 and line["mfu_ratio"] > 0 and line["memory_gib"] > 0
        assert f"| tiny@32 | off | {line['batch']} |" in printed
    assert record["cards"][0]["card"] == "CPU" and record["cards"][0]["peak_tflops"] > 0


@pytest.mark.slow
def test_the_gpu_benchmark_refuses_what_it_cannot_measure() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu_step"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("torch sees no GPU") and done.stderr.count("\n") == 1


@pytest.mark.cluster
@pytest.mark.long
def test_the_step_benchmark_runs_at_a_tiny_size(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    printed = run("train_step", "--smoke", "--out", str(out))
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == ["vilt", "loop", "ray", "utilisation", "scaling"]
    assert all(set(parts["vilt"][texts]["ways"]) == set(WAYS) for texts in ("titles", "descriptions"))
    assert "ViLT's step takes" in printed and "of a bare loop's rate" in printed


def test_every_way_learns_from_the_same_batch() -> None:
    work = Workload("tiny", 4, num_layers=1, num_records=16)
    (batch,) = work.batches(0, 1)
    assert batch.num_tokens_B.min() >= 6 and batch.num_tokens_B.max() <= TITLES.most
    for name in WAYS:
        way = make_way(name, work)
        inputs = way.prepare(batch)
        assert torch.equal(inputs.pixels_B3HW, to_tensors(batch, torch.device("cpu")).pixels_B3HW)
        way.step(inputs)


@pytest.mark.parametrize("name", ["padding computed", "every row to the end", "convolutions", "plain indexing"])
def test_a_gain_that_is_taken_away_changes_no_gradient(name: str) -> None:
    work = Workload("tiny", 4, num_layers=2, num_records=16)
    (batch,) = work.batches(0, 1)
    gradients = []
    for each in ("ours", name):
        way = make_way(each, work)
        way.step(way.prepare(batch))
        gradients.append([parameter.grad for parameter in way.model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_small_pictures_take_fewer_operations(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    said = run("small_pictures", "--rounds", "1", "--out", str(out))
    record = json.loads(out.read_text())
    assert said.startswith("| size |") and record["command"].startswith("python -m benchmarks.small_pictures ")
    assert record["sizes"]["tiny"]["cells"] == [16, 4] and record["sizes"]["small"]["px"] == [112, 64]
    assert all(each["gflop_ratio"] < 0.6 for each in record["sizes"].values())
