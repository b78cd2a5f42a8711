"""A real MLflow server on loopback is told what the study has: once, whatever is stopped, killed or away meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.pipelines.search.mlflow_server import EXPERIMENT, MlflowServer
from mlim_ray.pipelines.search.mlflow_watch import MlflowWatch
from mlim_ray.pipelines.search.study import SearchStudy, parameters_of, rungs_of
from mlim_ray.pipelines.search.trial_job import TRIALS, trial_folder
from mlim_ray.training.metrics import MetricsWriter
from mlim_ray.training.run_folder import RunFolder
from tests.mlflow_server import LocalMlflow, missing_packages
from tests.pipelines.search_runs import SMALL, SearchRun

CONFIG = SearchRunConfig(train=TrainConfig(learning_rate=1e-3), search=SearchConfig(num_trials=6, max_samples=900))
RUNGS = CONFIG.search.rungs


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMlflow]:
    missing = missing_packages()
    if missing:
        pytest.skip(f"an MLflow server needs {', '.join(missing)}: pip install -e '.[dev]'")
    with LocalMlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(str(tmp_path / "tune_mam-001"))
    found.write_json("environment.json", {"data": "generated:300"})
    return found


@pytest.fixture
def study() -> SearchStudy:
    return SearchStudy(InMemoryStorage(), CONFIG, lambda: None)


def runs_of(url: str, study: str) -> dict[str, Any]:
    """The runs that the server has of a study, by name; the study's own among them."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`mlim_ray.key` LIKE '{study}%'", max_results=500)
    names = [run.data.tags["mlflow.runName"] for run in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, found, strict=True))


def curve(url: str, run: Any, name: str) -> list[tuple[int, float]]:
    """A run's curve, every point that was ever told."""
    from mlflow import MlflowClient

    return [(entry.step, entry.value) for entry in MlflowClient(url).get_metric_history(run.info.run_id, name)]


def log_lines(folder: RunFolder, number: int, start: int, stop: int) -> list[tuple[int, float]]:
    """Lines of a trial's metrics, one each 100 samples."""
    writer = MetricsWriter(trial_folder(folder.path, TRIALS, number).path, start)
    points = [(100 * step, 1.0 / step) for step in range(start + 1, stop + 1)]
    for samples, loss in points:
        writer.write({"step": samples // 100, "samples": samples, "loss/mlm": loss, "data/keys": "not a number"})
    return points


def measured(score: float) -> dict[str, float]:
    return {"probe": score, "mlm": score + 0.1, "recon": score - 0.1}


def wait_for(is_so: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(1_200):
        if is_so():
            return
        tick.wait(0.1)
    raise AssertionError("it did not come")


def end(study: SearchStudy, number: int, state: TrialState, reason: str | None = None) -> None:
    for samples in RUNGS if state == TrialState.COMPLETE else RUNGS[:1]:
        study.report(number, samples, measured(0.5))
    study.finish(number, state, reason)


@pytest.mark.slow
def test_each_trial_is_a_run_below_the_search_with_its_curves(
    mlflow: LocalMlflow, folder: RunFolder, study: SearchStudy
) -> None:
    ends = [(TrialState.COMPLETE, None), (TrialState.PRUNED, None), (TrialState.FAIL, "the gradient is nan")]
    lines = {}
    with MlflowWatch(MlflowServer(mlflow.url), folder, "ends", CONFIG) as watch:
        for number, (state, reason) in enumerate(ends):
            study.begin()
            watch.update(TRIALS, study.trials())
            lines[number] = log_lines(folder, number, 0, 5)
            end(study, number, state, reason)
            watch.update(TRIALS, study.trials())
        best = {"trial": 0, "score": 0.5, "config": "best.yaml"}
        arm = {"mean": 0.6, "interval": [0.5, 0.7]}
        watch.conclude({"best": best, "verdict": ["Trial 0 wins."], "confirmation": {"arms": [arm]}})
    runs = runs_of(mlflow.url, "ends")
    search = runs.pop("tune_mam-001")
    assert search.info.status == "FINISHED" and "mlflow.parentRunId" not in search.data.tags
    assert search.data.params["search.max_samples"] == "900" and search.data.params["train.learning_rate"] == "0.001"
    assert folder.file("report.html") in search.data.tags["mlflow.note.content"]
    assert "- Trial 0 wins." in search.data.tags["mlflow.note.content"]
    assert search.data.metrics == {
        **{"best score": 0.5, "confirmed/mean": 0.6},
        **{"confirmed/low": 0.5, "confirmed/high": 0.7},
    }
    assert sorted(runs) == ["trial-00000-mam", "trial-00001-mam", "trial-00002-independent"]
    for (name, run), trial in zip(sorted(runs.items()), study.trials(), strict=True):
        assert run.data.tags["mlflow.parentRunId"] == search.info.run_id
        wanted = {"seed": 0, **parameters_of(trial)}
        assert run.data.params == {knob: str(value) for knob, value in wanted.items()}, name
        assert curve(mlflow.url, run, "loss/mlm") == lines[trial.number]
        rungs = rungs_of(trial)
        assert curve(mlflow.url, run, "score/mlm") == [(samples, rungs[samples]["mlm"]) for samples in sorted(rungs)]
        assert curve(mlflow.url, run, "score") == [(samples, rungs[samples]["probe"]) for samples in sorted(rungs)]
    told = [(run.info.status, run.data.tags["state"], run.data.tags.get("reason")) for _, run in sorted(runs.items())]
    assert told == [("FINISHED", "done", None), ("KILLED", "pruned", None), ("FAILED", "failed", "the gradient is nan")]


@pytest.mark.slow
def test_a_search_that_goes_on_tells_only_what_the_server_lacks(
    mlflow: LocalMlflow, folder: RunFolder, study: SearchStudy
) -> None:
    study.begin()
    log_lines(folder, 0, 0, 3)
    study.report(0, RUNGS[0], measured(0.9))
    with pytest.raises(KeyboardInterrupt), MlflowWatch(MlflowServer(mlflow.url), folder, "stopped", CONFIG) as watch:
        watch.update(TRIALS, study.trials())
        raise KeyboardInterrupt
    before = runs_of(mlflow.url, "stopped")
    assert {run.info.status for run in before.values()} == {"KILLED"}
    assert curve(mlflow.url, before["trial-00000-mam"], "score") == [(RUNGS[0], 0.9)]

    # The trial goes back to its checkpoint, and does again what was logged after that.
    log_lines(folder, 0, 2, 5)
    with pytest.raises(KeyboardInterrupt), MlflowWatch(MlflowServer(mlflow.url), folder, "stopped", CONFIG) as watch:
        watch.update(TRIALS, study.trials())
        study.report(0, RUNGS[1], measured(0.8))
        study.finish(0, TrialState.PRUNED)
        watch.update(TRIALS, study.trials())
        raise KeyboardInterrupt
    after = runs_of(mlflow.url, "stopped")
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    trial = after["trial-00000-mam"]
    assert trial.data.tags["state"] == "pruned"
    assert curve(mlflow.url, trial, "score") == [(RUNGS[0], 0.9), (RUNGS[1], 0.8)]
    assert [samples for samples, _ in curve(mlflow.url, trial, "loss/mlm")] == [100, 200, 300, 400, 500]


@pytest.mark.slow
def test_a_server_that_goes_away_is_told_all_when_it_is_back(
    mlflow: LocalMlflow,
    folder: RunFolder,
    study: SearchStudy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ours() -> list[str]:
        return [record.message for record in caplog.records if record.name.startswith("mlim_ray")]

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING), MlflowWatch(MlflowServer(mlflow.url), folder, "away", CONFIG) as watch:
        mlflow.kill()
        for number in range(2):
            study.begin()
            watch.update(TRIALS, study.trials())
            end(study, number, TrialState.COMPLETE)
        watch.update(TRIALS, study.trials())
        wait_for(lambda: bool(ours()))
        mlflow.start()
    runs = runs_of(mlflow.url, "away")
    assert {name: run.info.status for name, run in runs.items()} == {
        **{"tune_mam-001": "KILLED"},
        **{"trial-00000-mam": "FINISHED", "trial-00001-mam": "FINISHED"},
    }
    assert len(curve(mlflow.url, runs["trial-00001-mam"], "score")) == len(RUNGS)
    assert len(ours()) == 1 and ours()[0].startswith(f"MLflow at {mlflow.url} is told nothing for now"), ours()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    if missing_packages():
        pytest.skip("MLflow's client is not installed: pip install -e '.[dev]'")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=r"--mlflow: http://127.0.0.1:9 does not answer as an MLflow server: "):
        MlflowServer("http://127.0.0.1:9")


@pytest.mark.cluster
@pytest.mark.long
def test_a_search_that_is_killed_and_goes_on_is_in_mlflow_as_in_its_study(mlflow: LocalMlflow, tmp_path: Path) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "search"), SMALL)
    try:
        run.start("--mlflow", mlflow.url, "--trials", "3").wait_for(lambda: len(run.trials()) == 2)
        run.kill()
        run.resume().finish()
    finally:
        run.end()
    (line,) = [line for line in run.said.splitlines() if "mlflow" in line.lower()]
    assert line.startswith(f"MLflow: {mlflow.url}/#/experiments/")
    runs = runs_of(mlflow.url, "search-")
    search = runs.pop("search")
    assert search.info.status == "FINISHED"
    assert len(runs) == 3 and {one.info.status for one in runs.values()} == {"FINISHED"}
    for (_, told), trial in zip(sorted(runs.items()), run.trials(), strict=True):
        assert curve(mlflow.url, told, "score") == sorted(trial.intermediate_values.items())
        assert told.data.params["policy"] == parameters_of(trial)["policy"]
        lines = curve(mlflow.url, told, "loss/mlm")
        assert lines and len({samples for samples, _ in lines}) == len(lines)
