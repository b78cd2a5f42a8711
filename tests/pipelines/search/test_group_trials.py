"""Trials of two workers: they learn what trials of one do, whatever dies meanwhile, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.pipelines.failures import read_restarts
from mlim_ray.pipelines.search.study import rungs_of
from mlim_ray.pipelines.search.study_store import open_study
from tests.pipelines.own_ray import NUM_CPUS, OwnRay

pytestmark = [pytest.mark.cluster, pytest.mark.torture, pytest.mark.timeout(1_800)]

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENT = str(ROOT / "experiments" / "tune_mam.py")
BUDGET_S = 900.0
SLACK_BYTES = 1 << 20
"""of the object store: small results that Ray frees a little later"""
WORKER, CONTROLLER = "ray::RayTrainWorker", "ray::TrainController"
TRIAL = ("ray::ResourceTrainable", "ray::GroupTrial", "ray::trial")
FLAGS = [
    *("--data", "generated:400", "--prepare.vocabulary-size", "200", "--confirm", "false", "--json"),
    *("--search.max-concurrent-trials", "1", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--train.log-every-steps", "5"),
]
# Four references, and searched trials until one is stopped.
NUM_TRIALS, MAX_SAMPLES = 6, 900


class Search:
    """One search in `folder`, of one or more drivers one after the other."""

    def __init__(self, folder: Path, name: str, *flags: str, cluster: OwnRay | None = None) -> None:
        self.out = folder / name
        self._folder, self._flags = folder, list(flags)
        self._environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        if cluster is not None:
            self._environment = cluster.environment
            self._flags += ["--address", cluster.address, "--workers-per-trial", "2"]
        self.process = self._start()

    def resume(self) -> None:
        """Start another driver."""
        self.process = self._start("--resume")

    def trials(self) -> list[FrozenTrial]:
        """As the journal has them."""
        try:
            return open_study(str(self.out)).trials
        except (FileNotFoundError, KeyError, ValueError):
            return []

    def num_rungs(self) -> int:
        """Scores in the journal."""
        return sum(len(rungs_of(trial)) for trial in self.trials())

    def wait_for(self, due: Callable[[], bool]) -> None:
        """Until `due`, which must come before the driver ends; it is not asked again after that."""
        tick = threading.Event()
        for _ in range(int(BUDGET_S * 20)):
            if due():
                return
            if self.process.poll() is not None:
                break
            tick.wait(0.05)
        raise AssertionError(self.leave())

    def kill(self) -> None:
        """Kill the driver."""
        self.process.send_signal(signal.SIGKILL)
        self.leave()

    def leave(self) -> str:
        """What the driver said until its end."""
        stdout, stderr = self.process.communicate(timeout=BUDGET_S)
        return stdout + stderr

    def finish(self) -> str:
        """What the driver said until it ended well."""
        output = self.leave()
        assert self.process.returncode == 0, output
        return output

    def _start(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, EXPERIMENT, *FLAGS, *self._flags, *flags, "--out", str(self.out)],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def budget(num_trials: int = NUM_TRIALS) -> list[str]:
    return ["--trials", str(num_trials), "--max-samples", str(MAX_SAMPLES)]


def kill_one(search: Search, cluster: OwnRay, title: str | tuple[str, ...]) -> None:
    """Kill a process of the trial that runs, once there is one: between two trials there may be none."""

    def has_killed() -> bool:
        for process in cluster.processes(title):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                return True
        return False

    search.wait_for(has_killed)


def is_empty(counted: dict[str, Any]) -> bool:
    return not counted["placement_groups"] and not counted["actors"] and counted["free_cpus"] == NUM_CPUS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("groups")


@pytest.fixture(scope="module")
def cluster() -> Iterator[OwnRay]:
    with OwnRay(dashboard=False) as ray:
        yield ray


@pytest.fixture(scope="module")
def of_one_worker(folder: Path) -> Search:
    """The same search with one worker a trial."""
    search = Search(folder, "one", *budget(), "--no-dashboard")
    search.finish()
    return search


def test_a_search_whose_workers_and_driver_are_killed_finds_what_one_worker_a_trial_finds(
    folder: Path, cluster: OwnRay, of_one_worker: Search
) -> None:
    before = cluster.count()
    search = Search(folder, "two", *budget(), cluster=cluster)
    search.wait_for(lambda: search.num_rungs() >= 1)
    kill_one(search, cluster, WORKER)
    first = str(search.out / "trials" / "00000")
    search.wait_for(lambda: len(read_restarts(first)) == 1)
    search.wait_for(lambda: len(search.trials()) >= 2 and bool(rungs_of(search.trials()[1])))
    search.kill()
    assert [trial.state for trial in search.trials()] == [TrialState.COMPLETE, TrialState.RUNNING]
    search.resume()
    search.wait_for(lambda: len(search.trials()) >= 3 and bool(rungs_of(search.trials()[2])))
    kill_one(search, cluster, TRIAL)
    search.finish()

    expected, found = of_one_worker.trials(), search.trials()
    assert [(t.number, t.state, t.params) for t in found] == [(t.number, t.state, t.params) for t in expected]
    assert {trial.state for trial in found} == {TrialState.COMPLETE, TrialState.PRUNED}
    for one, two in zip(expected, found, strict=True):
        assert list(rungs_of(two)) == list(rungs_of(one))
        for samples, measures in rungs_of(one).items():
            assert rungs_of(two)[samples] == pytest.approx(measures, abs=1e-4)
    (died,) = read_restarts(first)[0]["failed"].values()
    assert died == "its process died"
    after = cluster.wait_until(is_empty)
    assert is_empty(after), after
    assert after["object_store_bytes"] <= before["object_store_bytes"] + SLACK_BYTES


def test_a_killed_trial_leaves_nothing_where_the_dashboard_runs(folder: Path, of_one_worker: Search) -> None:
    with OwnRay(dashboard=True) as cluster:
        before = cluster.count()
        search = Search(folder, "with-dashboard", *budget(2), cluster=cluster)
        search.wait_for(lambda: search.num_rungs() >= 1)
        kill_one(search, cluster, CONTROLLER)
        search.finish()
        expected = [rungs_of(trial) for trial in of_one_worker.trials()[:2]]
        for one, two in zip(expected, map(rungs_of, search.trials()), strict=True):
            assert two == {samples: pytest.approx(measures, abs=1e-4) for samples, measures in one.items()}
        after = cluster.wait_until(is_empty)
        assert is_empty(after), after
        assert after["object_store_bytes"] <= before["object_store_bytes"] + SLACK_BYTES


def test_a_trial_goes_on_when_the_node_of_one_of_its_workers_is_lost(
    folder: Path, cluster: OwnRay, of_one_worker: Search
) -> None:
    search = Search(folder, "lost-node", *budget(1), cluster=cluster)
    # The search is planned for the node that is there; its first group then finds but one CPU free on it.
    search.wait_for(lambda: (search.out / "environment.json").exists())
    cluster.hold_cpu()
    node = cluster.add_node()
    search.wait_for(lambda: search.num_rungs() >= 1)
    cluster.end_node(node)
    cluster.free_cpu()
    first = str(search.out / "trials" / "00000")
    search.wait_for(lambda: len(read_restarts(first)) >= 1)
    search.finish()
    (trial,) = search.trials()
    for samples, measures in rungs_of(of_one_worker.trials()[0]).items():
        assert rungs_of(trial)[samples] == pytest.approx(measures, abs=1e-4)
    after = cluster.wait_until(is_empty)
    assert is_empty(after), after


@pytest.mark.torture
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("dashboard", [False, True], ids=["no dashboard", "dashboard"])
def test_thirty_trials_leave_nothing_behind(tmp_path: Path, dashboard: bool) -> None:
    """Nine of them are struck: a worker, the controller or the trial's own process is killed."""
    titles = (WORKER, CONTROLLER, TRIAL)
    with OwnRay(dashboard=dashboard) as cluster:
        before = cluster.count()
        search = Search(tmp_path, "thirty", *budget(30), cluster=cluster)
        most_groups, struck = 0, 0
        while struck < 9:
            number = 3 * struck
            search.wait_for(lambda number=number: number < len(search.trials()) and search.trials()[number].user_attrs)
            search.wait_for(lambda number=number: bool(rungs_of(search.trials()[number])))
            kill_one(search, cluster, titles[struck % 3])
            struck += 1
            most_groups = max(most_groups, cluster.count()["placement_groups"])
        search.finish()
        assert len(search.trials()) == 30
        assert {trial.state for trial in search.trials()} <= {TrialState.COMPLETE, TrialState.PRUNED}
        # The trial's own, its workers', and one that is being made or freed.
        assert most_groups <= 4
        after = cluster.wait_until(is_empty)
        print(f"30 trials, 9 of them struck: before {before}, after {after}; at most {most_groups} placement groups")
        assert is_empty(after), after
        assert after["object_store_bytes"] <= before["object_store_bytes"] + SLACK_BYTES
