"""`experiments/pretrain.py` as a person runs it: its run folder (C7), its workers (C3), and what a kill costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from mlim_ray.masking.mam import MODES
from mlim_ray.model.pretrained import MlimPreTrainedModel
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import read_metrics
from mlim_ray.training.run_diff import diff_runs
from tests.builders import digests, figures, timeless
from tests.event_reader import scalars

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
BUDGET_S = 240.0
# 503 training records are 8 steps an epoch; checkpoints lie between logged steps.
NUM_STEPS, NUM_EPOCHS, LOG_EVERY, CHECKPOINT_EVERY = 24, 3, 3, 10
FLAGS = [
    *("--data", "generated:600", "--steps", str(NUM_STEPS), "--no-dashboard", "--json"),
    *("--train.log-every-steps", str(LOG_EVERY), "--train.checkpoint-every-steps", str(CHECKPOINT_EVERY)),
    *("--probe.num-records", "32", "--probe.linear-train-records", "100"),
]
PROBE_NAMES = {f"{side}_{partner}" for side in ("mlm", "recon") for partner in ("paired", "shuffled", "blank")}


def start(folder: Path, *flags: str, experiment: str = "pretrain") -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # As if the package were installed, for Ray's workers too.
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / f"{experiment}.py"), *flags],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=BUDGET_S)
    assert process.returncode == 0, stderr
    summary: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return summary


def refusal(folder: Path, *flags: str) -> str:
    """The one line on standard error of a command that does not start."""
    process = start(folder, *flags)
    stdout, stderr = process.communicate(timeout=BUDGET_S)
    assert process.returncode == 2, stdout + stderr
    (line,) = stderr.splitlines()
    return line


def wait_until(process: subprocess.Popen[str], due: Callable[[], bool]) -> None:
    """Until `due`, which must come before the process ends."""
    tick = threading.Event()
    for _ in range(int(BUDGET_S * 100)):
        if due() or process.poll() is not None:
            break
        tick.wait(0.01)
    assert due() and process.poll() is None, process.communicate(timeout=BUDGET_S)[1]


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 the driver and its process group; gives when all that it started has ended."""
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=BUDGET_S)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive, f"Ray left {alive}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all runs are started from; they share the prepared set in it."""
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture(scope="module")
def one_worker(folder: Path) -> tuple[Path, dict[str, Any]]:
    return folder / "runs" / "one", finish(start(folder, *FLAGS, "--out", "runs/one"))


@pytest.fixture(scope="module")
def two_workers(folder: Path, one_worker: object) -> tuple[Path, dict[str, Any]]:
    return folder / "runs" / "two", finish(start(folder, *FLAGS, "--out", "runs/two", "--workers", "2"))


def test_the_summary_names_what_the_run_gave(one_worker: tuple[Path, dict[str, Any]]) -> None:
    run, summary = one_worker
    assert (summary["out"], summary["steps"], summary["report"]) == ("runs/one", NUM_STEPS, "runs/one/report.html")
    assert set(summary["probe"]) >= PROBE_NAMES
    assert all(isinstance(summary["probe"][name], float) and summary["probe"][name] > 0 for name in PROBE_NAMES)
    evaluation = json.loads((run / "evaluation.json").read_text())
    at = {entry["hidden_ratio"]: entry for entry in evaluation["probe"]["at"]}
    assert set(at) == {0.2, 0.5, 0.8, 1.0}
    assert {name: at[0.8][name] for name in PROBE_NAMES} == {name: summary["probe"][name] for name in PROBE_NAMES}


def test_the_run_folder_is_whole(one_worker: tuple[Path, dict[str, Any]]) -> None:
    run, _ = one_worker
    names = {path.name for path in run.iterdir()}
    expected = {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "model", "report.html"}
    assert names >= expected | {"evaluation.json"}
    assert not names & {"lease.json", "metrics.redone.jsonl"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["train"]["num_steps"] == NUM_STEPS and config["masking"]["kind"] == "mam"
    assert isinstance(config["train"]["learning_rate"], float) and config["model"]["size"] == "tiny"
    # The form of a source is told from its content each time that it is opened.
    assert config["prepare"].pop("format") == "auto"
    resolved = {name: knobs for name, knobs in config.items() if name != "feed"}
    assert "auto" not in [value for knobs in resolved.values() for value in knobs.values()]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert (environment["data"], environment["num_workers"]) == ("generated:600", 1)
    page = (run / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "one" in page


def test_every_logged_step_has_its_line(one_worker: tuple[Path, dict[str, Any]]) -> None:
    run, summary = one_worker
    lines = read_metrics(str(run))
    assert [line["step"] for line in lines] == list(range(LOG_EVERY, NUM_STEPS + 1, LOG_EVERY))
    assert lines[-1]["epoch"] == NUM_EPOCHS and lines[-1]["samples"] == summary["samples"]
    # By the paper's values an image-heavy record hides no word, so it has no MLM loss.
    modes = {f"loss/{side}/{mode}" for side in ("mlm", "recon") for mode in MODES} - {"loss/mlm/image_heavy"}
    assert all(set(line) >= {"loss/total", "loss/mlm", "loss/recon", "learning_rate"} | modes for line in lines)
    assert lines[-1]["loss/total"] < lines[0]["loss/total"]


def test_every_logged_step_has_its_points_for_tensorboard(one_worker: tuple[Path, dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (one_worker[0] / "metrics.jsonl").read_text().splitlines()]
    curves = scalars(one_worker[0] / "tensorboard")
    for name in ("loss/mlm", "learning_rate", "time/data_wait_ratio"):
        assert curves[name] == [(line["step"], pytest.approx(line[name], rel=1e-5, abs=1e-6)) for line in lines]


def test_the_model_folder_loads_with_transformers(one_worker: tuple[Path, dict[str, Any]]) -> None:
    run, _ = one_worker
    store = CheckpointStore(str(run / "checkpoints"))
    assert store.steps() == [20, NUM_STEPS]
    checkpoint = store.latest().checkpoint
    assert checkpoint is not None
    model = AutoModel.from_pretrained(run / "model")
    assert isinstance(model, MlimPreTrainedModel)
    weights = model.state_dict()
    assert set(weights) >= set(checkpoint.weights)
    assert all(torch.equal(weights[name], value) for name, value in checkpoint.weights.items())
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer.mask_token == "[MASK]" and len(tokenizer("red shirt")["input_ids"]) >= 3
    processor = AutoProcessor.from_pretrained(run / "model")
    assert model(**processor(text="red [MASK]")).logits.isfinite().all()


def test_a_run_leaves_a_card_and_pictures(one_worker: tuple[Path, dict[str, Any]]) -> None:
    run, summary = one_worker
    card = (run / "model" / "README.md").read_text()
    assert f"# {run.name}" in card and f"{summary['probe']['mlm_paired']:.3f}" in card
    names = sorted(path.name for path in (run / "pictures").iterdir())
    assert names == ["contact_sheet.png", *(f"record-{number:02d}.png" for number in range(1, 9))]
    assert "from the title alone" in (run / "report.html").read_text()


def test_two_workers_learn_what_one_learns(
    one_worker: tuple[Path, dict[str, Any]], two_workers: tuple[Path, dict[str, Any]]
) -> None:
    one, two = (timeless(read_metrics(str(run))) for run, _ in (one_worker, two_workers))
    assert json.loads((two_workers[0] / "environment.json").read_text())["num_workers"] == 2
    for a, b in zip(one, two, strict=True):
        assert figures(b) == pytest.approx(figures(a), rel=1e-5, nan_ok=True), a["step"]
        assert digests(b) == digests(a) and len(digests(a)) == 2
    found = diff_runs(str(one_worker[0]), str(two_workers[0]), tolerance=1e-5)
    assert found.first_steps == {} and found.knobs == () and found.same_set and found.has_digests


def test_a_finished_run_is_neither_redone_nor_lost(folder: Path, one_worker: tuple[Path, dict[str, Any]]) -> None:
    run, summary = one_worker
    metrics = (run / "metrics.jsonl").read_bytes()
    line = refusal(folder, *FLAGS, "--out", "runs/one")
    assert "--resume" in line and "--overwrite" in line and "finished" in line
    assert finish(start(folder, "--out", "runs/one", "--resume", "--json")) == summary
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_a_killed_run_goes_on_as_if_nothing_had_happened(folder: Path, one_worker: tuple[Path, dict[str, Any]]) -> None:
    run = folder / "runs" / "killed"
    process = start(folder, *FLAGS, "--out", "runs/killed")
    store = CheckpointStore(str(run / "checkpoints"))
    # A checkpoint is written in the background, while training goes on.
    wait_until(process, lambda: any(line["step"] >= 12 for line in read_metrics(str(run))) and bool(store.steps()))
    kill(process)
    (newest,) = store.steps()
    written = read_metrics(str(run))
    assert newest == CHECKPOINT_EVERY and not (run / "evaluation.json").exists()

    line = refusal(folder, "--out", "runs/killed", "--resume", "--train.learning-rate", "0.5")
    assert "--train.learning-rate" in line
    assert read_metrics(str(run)) == written

    assert finish(start(folder, "--out", "runs/killed", "--resume", "--no-dashboard", "--json"))["steps"] == NUM_STEPS
    assert timeless(read_metrics(str(run))) == timeless(read_metrics(str(one_worker[0])))
    found = diff_runs(str(run), str(one_worker[0]))
    assert found.first_steps == {} and found.largest is None and found.steps[-1] == NUM_STEPS
    redone = [json.loads(text) for text in (run / "metrics.redone.jsonl").read_text().splitlines()]
    assert redone == [line for line in written if line["step"] > newest]


def test_a_run_says_which_checkpoint_it_refuses_and_goes_on_from_the_one_before(
    folder: Path, one_worker: tuple[Path, dict[str, Any]]
) -> None:
    run = Path(shutil.copytree(one_worker[0], folder / "runs" / "damaged"))
    (run / "evaluation.json").unlink()
    path = run / "checkpoints" / f"step-{NUM_STEPS:08d}" / "trainer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    process = start(folder, "--out", "runs/damaged", "--resume", "--no-dashboard")
    stdout, stderr = process.communicate(timeout=BUDGET_S)
    assert process.returncode == 0, stderr
    relative = path.relative_to(folder)
    assert f"checkpoint of step {NUM_STEPS} refused: {relative} has not the sha256 that was written" in stdout + stderr
    assert timeless(read_metrics(str(run))) == timeless(read_metrics(str(one_worker[0])))
    redone = [json.loads(text)["step"] for text in (run / "metrics.redone.jsonl").read_text().splitlines()]
    assert redone == [21, 24] and CheckpointStore(str(run / "checkpoints")).check() == []
