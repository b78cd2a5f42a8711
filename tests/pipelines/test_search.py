"""A search from the command line, as a person runs it: its files, its references, and what stopping it costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from optuna.trial import TrialState

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.files import parse_config
from mlim_ray.pipelines.search.space import REFERENCES
from tests.pipelines.search_runs import ROOT, SMALL, SearchRun

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def undisturbed(undisturbed_search: SearchRun) -> tuple[Path, dict[str, Any], str]:
    """Folder, summary and what was on the screen."""
    return Path(undisturbed_search.out), undisturbed_search.summary, undisturbed_search.said


def test_references_come_first_and_run_to_the_end(undisturbed: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, _ = undisturbed
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    assert [row["role"] for row in rows] == [*REFERENCES, "searched", "searched", "searched"]
    assert [row["state"] for row in rows[:4]] == ["COMPLETE"] * 4
    assert (rows[0]["mam.image_heavy_ratio"], rows[0]["mam.text_heavy_ratio"]) == (0.8, 0.8)
    assert (rows[1]["mam.light_probability"], rows[2]["independent.text_ratio"]) == (1.0, 0.8)
    assert all(row["samples"] >= 216 for row in rows if row["state"] == "COMPLETE")
    assert [row["trial"] for row in rows] == list(range(7))
    leader = summary["confirmation"]["arms"][0]["trial"]
    assert summary["best"]["trial"] == leader
    assert summary["best"]["score"] == rows[leader]["score"]


def test_the_best_and_two_references_run_again_with_fresh_seeds(
    undisturbed: tuple[Path, dict[str, Any], str], undisturbed_search: SearchRun
) -> None:
    out, summary, _ = undisturbed
    confirmation = summary["confirmation"]
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    best = sorted((row for row in rows if row["state"] == "COMPLETE"), key=lambda row: row["score"])[:2]
    assert {arm["trial"] for arm in confirmation["arms"]} == {0, 1, *(row["trial"] for row in best)}
    runs = undisturbed_search.trials("confirmation")
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


def test_asha_stops_the_weak_at_a_rung(undisturbed_search: SearchRun) -> None:
    trials = undisturbed_search.trials()
    stopped = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert stopped
    assert all(trial.user_attrs["role"] == "searched" for trial in stopped)
    rungs = {step for trial in trials[:4] for step in trial.intermediate_values}
    assert all(max(trial.intermediate_values) in rungs and max(trial.intermediate_values) < 216 for trial in stopped)
    for trial in trials:
        folder = Path(undisturbed_search.out, "trials", f"{trial.number:05d}")
        assert (folder / "checkpoints").exists() == (trial.state == TrialState.COMPLETE)


def test_a_search_leaves_what_it_promises(undisturbed: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, screen = undisturbed
    for name in (
        "config.yaml",
        "environment.json",
        "evaluation.json",
        "report.html",
        "best.yaml",
        "study.log",
        "study.json",
    ):
        assert (out / name).is_file(), name
    assert (out / "model" / "model.safetensors").is_file()
    assert (out / "pictures" / "contact_sheet.png").is_file()
    card = (out / "model" / "README.md").read_text()
    assert f"MLM, nats per hidden piece | {summary['probe']['mlm_paired']:.3f}" in card and "216 records in 27" in card
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
    undisturbed_search: SearchRun, tmp_path: Path
) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "disturbed"))
    try:
        run.start().wait_for(lambda: any(trial.intermediate_values for trial in run.trials()))
        os.killpg(run.driver.pid, signal.SIGINT)
        line = run.refused(130)
        assert f"--out {run.out} --resume" in line and line in run.said
        run.resume().wait_for_lines(run.num_lines() + 6)
        run.driver.terminate()
        assert run.refused(75).startswith("stopped by SIGTERM; finished trials are kept")
        # Within the search, and within its confirmation.
        for kind in ("search", "confirmation"):
            run.resume().wait_for(lambda kind=kind: len(run.trials(kind)) > 3 and run.trials(kind)[-1].state.value == 0)
            if kind == "search":
                second = SearchRun(tmp_path, run.out).resume()
                assert second.refused().startswith(f"{run.out} is in use by process {run.driver.pid} on ")
            run.kill()
            assert [trial.state for trial in run.trials(kind)].count(TrialState.RUNNING) <= 1
        run.resume().finish()
    finally:
        run.end()
    assert run.tables() == undisturbed_search.tables()


@pytest.mark.long
def test_streamed_trials_learn_what_resident_ones_do(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "streamed"))
    try:
        run.start("--feed", "stream", "--confirm", "false", "--trials", "1").finish()
    finally:
        run.end()
    assert run.trials()[0].intermediate_values == undisturbed_search.trials()[0].intermediate_values


@pytest.mark.long
def test_trials_of_two_workers_learn_what_those_of_one_do(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "two"))
    try:
        run.start("--workers-per-trial", "2", "--confirm", "false", "--trials", "1").finish()
    finally:
        run.end()
    (two,), one = run.trials(), undisturbed_search.trials()[0]
    assert two.state == TrialState.COMPLETE and two.intermediate_values.keys() == one.intermediate_values.keys()
    assert list(two.intermediate_values.values()) == pytest.approx(list(one.intermediate_values.values()), abs=1e-4)


@pytest.mark.long
def test_the_benchmark_tells_whether_the_first_rung_ranks_trials_as_the_last(
    undisturbed_search: SearchRun, tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    command = [sys.executable, "-m", "benchmarks.rank_correlation", undisturbed_search.out, "--out", str(record)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    pairs = {(row["first"], row["last"]): row for row in json.loads(record.read_text())["first_to_last"]}
    found = pairs["probe", "probe"]
    whole = [trial.intermediate_values for trial in undisturbed_search.trials() if trial.state == TrialState.COMPLETE]
    first, last = (np.argsort(np.argsort([values[at(values)] for values in whole])) for at in (min, max))
    assert found["spearman"] == pytest.approx(np.corrcoef(first, last)[0, 1])
    assert -1 <= found["interval"][0] <= found["spearman"] <= found["interval"][1] <= 1


@pytest.mark.long
def test_a_search_for_two_scores_ends_with_their_front_and_a_confirmed_leader(
    undisturbed_search: SearchRun, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed_search.folder / "prepared", tmp_path / "prepared")
    run = SearchRun(tmp_path, str(tmp_path / "two-scores"), SMALL)
    try:
        summary = run.start(
            *("--score", "mlm,0.5*recon+0.5*probe", "--trials", "6", "--confirm", "true", "--search.num-rungs", "2"),
            *("--search.num-confirm-seeds", "2"),
        ).finish()
    finally:
        run.end()
    whole = {trial.number: trial.values for trial in run.trials() if trial.state == TrialState.COMPLETE}
    assert all(len(values) == 2 for values in whole.values()) and len(whole) >= 4

    def is_beaten(values: list[float]) -> bool:
        return any(other != values and all(np.less_equal(other, values)) for other in whole.values())

    front = {number for number, values in whole.items() if not is_beaten(values)}
    verdict = " ".join(json.loads((tmp_path / "two-scores" / "evaluation.json").read_text())["verdict"])
    told = re.search(r"Trials? ([\d, ]+) (?:is|are) on the front", verdict)
    assert told is not None and {int(number) for number in told[1].split(",")} == front, verdict
    rows = {row["trial"]: row for row in summary["trials"]}
    assert all(rows[number]["score"] == pytest.approx(sum(values) / 2) for number, values in whole.items())
    assert summary["best"]["trial"] == summary["confirmation"]["arms"][0]["trial"]
    assert "front-0" in (tmp_path / "two-scores" / "report.html").read_text()
