"""A search from the command line, as a person runs it: its files, its references, and what stopping it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.files import parse_config
from mlim_ray.pipelines.search.space import REFERENCES
from mlim_ray.pipelines.search.study import CONFIRMATION_NAME, STUDY_NAME

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = str(ROOT / "experiments" / "tune_mam.py")
BUDGET_S = 400.0
# One trial at a time, so that two searches of one seed are the same search.
FLAGS = [
    *("--data", "generated:800", "--max-samples", "2700", "--no-dashboard", "--json"),
    *("--search.max-concurrent-trials", "1", "--probe.num-records", "64", "--probe.linear-train-records", "200"),
    *("--train.log-every-steps", "5", "--search.num-confirm-seeds", "2"),
]


def start(out: Path, *flags: str, num_trials: int = 7) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, EXPERIMENT, *FLAGS, "--trials", str(num_trials), "--out", str(out), *flags],
        cwd=out.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=BUDGET_S)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1]), stdout + stderr


def trials_of(search: Path, name: str = STUDY_NAME) -> list[FrozenTrial]:
    journal = search / "study.log"
    if not journal.exists():
        return []
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return optuna.load_study(study_name=name, storage=storage).trials
    except (KeyError, ValueError):
        return []


def interrupt_when(process: subprocess.Popen[str], due: Callable[[], bool], number: signal.Signals) -> None:
    """Send a signal to the driver once `due`; the search must not have ended by itself before."""
    tick = threading.Event()
    for _ in range(int(BUDGET_S * 10)):
        if due() or process.poll() is not None:
            break
        tick.wait(0.1)
    assert process.poll() is None, "the search ended before it could be interrupted"
    os.killpg(process.pid, number)


def record(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.params, trial.value, trial.intermediate_values


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    out = tmp_path_factory.mktemp("search") / "undisturbed"
    return out, *finish(start(out))


def test_references_come_first_and_run_to_the_end(undisturbed: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, _ = undisturbed
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    assert [row["role"] for row in rows] == [*REFERENCES, "searched", "searched", "searched"]
    assert [row["state"] for row in rows[:4]] == ["COMPLETE"] * 4
    assert (rows[0]["mam.image_heavy_ratio"], rows[0]["mam.text_heavy_ratio"]) == (0.8, 0.8)
    assert (rows[1]["mam.light_probability"], rows[2]["independent.text_ratio"]) == (1.0, 0.8)
    assert all(row["samples"] >= 2_700 for row in rows if row["state"] == "COMPLETE")
    assert {row["trial"] for row in rows} == {trial.number for trial in trials_of(out)}
    leader = summary["confirmation"]["arms"][0]["trial"]
    assert summary["best"]["trial"] == leader
    assert summary["best"]["score"] == rows[leader]["score"]


def test_the_best_and_two_references_run_again_with_fresh_seeds(
    undisturbed: tuple[Path, dict[str, Any], str],
) -> None:
    out, summary, _ = undisturbed
    confirmation = summary["confirmation"]
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    best = sorted((row for row in rows if row["state"] == "COMPLETE"), key=lambda row: row["score"])[:2]
    assert {arm["trial"] for arm in confirmation["arms"]} == {0, 1, *(row["trial"] for row in best)}
    runs = trials_of(out, CONFIRMATION_NAME)
    assert sorted({run.user_attrs["seed"] for run in runs}) == confirmation["seeds"] == [1, 2]
    assert len(runs) == 2 * len(confirmation["arms"])
    for arm in confirmation["arms"]:
        of_arm = {run.user_attrs["seed"]: run.value for run in runs if run.user_attrs["of"] == arm["trial"]}
        assert [of_arm[seed] for seed in confirmation["seeds"]] == arm["scores"]
        assert arm["interval"][0] < arm["mean"] < arm["interval"][1]
        assert arm["scores"][0] != arm["scores"][1]
        assert rows[arm["trial"]]["score"] not in arm["scores"]
    means = [arm["mean"] for arm in confirmation["arms"]]
    assert means == sorted(means)


def test_asha_stops_the_weak_at_a_rung(undisturbed: tuple[Path, dict[str, Any], str]) -> None:
    trials = trials_of(undisturbed[0])
    stopped = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert stopped
    assert all(trial.user_attrs["role"] == "searched" for trial in stopped)
    rungs = {step for trial in trials[:4] for step in trial.intermediate_values}
    assert all(max(trial.intermediate_values) in rungs and max(trial.intermediate_values) < 2_700 for trial in stopped)


def test_a_search_leaves_what_it_promises(undisturbed: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, screen = undisturbed
    for name in ("config.yaml", "environment.json", "evaluation.json", "report.html", "best.yaml", "study.log"):
        assert (out / name).is_file(), name
    assert (out / "model" / "model.safetensors").is_file()
    assert {"out", "steps", "report", "probe", "best"} <= summary.keys()
    assert {"mlm_paired", "mlm_shuffled", "mlm_blank", "recon_paired", "recon_shuffled", "recon_blank"} <= summary[
        "probe"
    ].keys()
    assert {"trial", "score", "config", "model"} <= summary["best"].keys()
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert set(best) == {"method", "size"}
    larger = parse_config((out / "best.yaml").read_bytes(), "best.yaml", SearchRunConfig(), "base")
    assert larger.train.learning_rate == "auto" and larger.masking.model_dump(mode="json") == best["method"]["masking"]
    assert "next: python experiments/pretrain.py" in screen and str(out / "report.html") in screen
    for chatter in ("warn", "Traceback", "INFO", "Tune Status", "ray::"):
        assert chatter not in screen, screen


def test_a_search_that_is_stopped_and_killed_ends_as_if_it_had_not_been(
    undisturbed: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    out = tmp_path / "disturbed"
    stopped = start(out)
    interrupt_when(stopped, lambda: any(trial.intermediate_values for trial in trials_of(out)), signal.SIGINT)
    _, stderr = stopped.communicate(timeout=BUDGET_S)
    assert stopped.returncode == 130, stderr
    assert f"--out {out} --resume" in stderr and len(stderr.strip().splitlines()[-1:]) == 1

    killed = start(out, "--resume")
    num_reported = sum(len(trial.intermediate_values) for trial in trials_of(out))
    interrupt_when(
        killed,
        lambda: sum(len(trial.intermediate_values) for trial in trials_of(out)) >= num_reported + 3,
        signal.SIGKILL,
    )
    killed.communicate(timeout=BUDGET_S)
    unfinished = [trial.number for trial in trials_of(out) if trial.state == TrialState.RUNNING]
    assert unfinished, "the kill was to leave a trial running"

    finish(start(out, "--resume"))
    for name in (STUDY_NAME, CONFIRMATION_NAME):
        assert list(map(record, trials_of(out, name))) == list(map(record, trials_of(undisturbed[0], name)))


def test_streamed_trials_learn_what_resident_ones_do(
    undisturbed: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    finish(start(tmp_path / "streamed", "--feed", "stream", "--confirm", "false", num_trials=1))
    streamed, resident = trials_of(tmp_path / "streamed")[0], trials_of(undisturbed[0])[0]
    assert streamed.intermediate_values == resident.intermediate_values
