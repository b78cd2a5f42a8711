"""A run of `experiments/pretrain.py` that faults are done to, and the account of each: where, and what it cost."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mlim_ray.training.metrics import read_metrics
from tests.builders import timeless
from tests.pipelines.test_pretrain import start

BUDGET_S = 600.0
CHECKPOINT_EVERY = 10
NUM_STEPS = 90


def flags_of(data: str, num_steps: int) -> list[str]:
    """What a run is started with that writes every step down and saves often."""
    return [
        *("--data", data, "--prepare.vocabulary-size", "200", "--no-dashboard", "--json"),
        *("--train.batch-size", "64", "--train.log-every-steps", "1"),
        *("--train.checkpoint-every-steps", str(CHECKPOINT_EVERY), "--steps", str(num_steps)),
        *("--probe.num-records", "16", "--probe.linear-train-records", "50"),
    ]


FLAGS = flags_of("generated:400", NUM_STEPS)
TRAIN_WORKER, CONTROLLER = "ray::RayTrainWorker", "ray::TrainController"


AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@dataclass(frozen=True)
class Blow:
    """One fault that struck."""

    fault: str
    step: int
    """the newest step in the metrics when it struck"""
    steps_redone: int


@dataclass
class FaultyRun:
    """A run in `folder/runs/name`; its driver and all below are ended with `end`."""

    folder: Path
    name: str
    flags: list[str]
    workers: str = "2"
    """the flag of that name"""
    blows: list[Blow] = field(default_factory=list)
    output: str = ""
    """of all drivers so far"""
    error: str = ""
    """what the last driver said on standard error"""
    budget_s: float = BUDGET_S
    """the longest that any wait for it takes"""

    def __post_init__(self) -> None:
        self.run = self.folder / "runs" / self.name
        self._seen: dict[int, psutil.Process] = {}
        self.process = self._start(*self.flags, "--out", f"runs/{self.name}")

    def resume(self, *flags: str) -> None:
        """Start the driver again, as the message of a stopped run says."""
        self.process = self._start("--out", f"runs/{self.name}", "--resume", "--no-dashboard", "--json", *flags)

    def _start(self, *flags: str) -> subprocess.Popen[str]:
        return start(self.folder, *flags, "--workers", self.workers)

    def step(self) -> int:
        """The newest logged step."""
        lines = read_metrics(str(self.run))
        return int(lines[-1]["step"]) if lines else 0

    def num_redone(self) -> int:
        """Steps that were done a second time."""
        path = self.run / "metrics.redone.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def restarts(self) -> list[dict[str, str]]:
        """What failed at each restart, as the run tells it."""
        path = self.run / "restarts.jsonl"
        return [json.loads(line)["failed"] for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, due: Callable[[], bool]) -> None:
        """Until `due`, which must come before the driver ends."""
        tick = threading.Event()
        for _ in range(int(self.budget_s * 50)):
            if self.process.poll() is not None or due():
                break
            tick.wait(0.02)
        assert self.process.poll() is None and due(), self.leave()

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: self.step() >= step)

    def below(self, name: str = "") -> list[psutil.Process]:
        """Processes that the driver started, by the start of their title."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._seen[process.pid] = process
            try:
                if (process.cmdline() or [""])[0].startswith(name):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def is_up(self) -> bool:
        """Whether the controller and all workers are there."""
        return len(self.below(CONTROLLER)) == 1 and len(self.below(TRAIN_WORKER)) == int(self.workers)

    def worker(self, rank: int) -> psutil.Process:
        """A training worker: the first one alone holds the meeting point of all, so it listens on one port more."""
        ports = {
            process: sum(c.status == psutil.CONN_LISTEN for c in process.net_connections())
            for process in self.below(TRAIN_WORKER)
        }
        return sorted(ports, key=lambda process: -ports[process])[rank]

    def strike(self, fault: str, at_step: int) -> Blow:
        """Do the fault once `at_step` is logged, and return when the run got past the step where it struck."""
        # Looking for the victims takes as long as some steps do.
        self.wait_for(lambda: self.step() > 0 and self.is_up())
        hit = FAULTS[fault](self)
        self.wait_for_step(at_step)
        before, num_restarts = self.num_redone(), len(self.restarts())
        hit()
        step = self.step()
        if "driver" in fault:
            self.leave()
            self.resume()
        else:
            self.wait_for(lambda: len(self.restarts()) > num_restarts)
        self.wait_for(lambda: self.step() > step)
        blow = Blow(fault, step, self.num_redone() - before)
        self.blows.append(blow)
        return blow

    def finish(self) -> str:
        """The driver's output once it has ended well."""
        output = self.leave()
        assert self.process.returncode == 0, output
        return output

    def leave(self) -> str:
        """The driver's output once it has ended, and all that it started with it."""
        try:
            stdout, stderr = self.process.communicate(timeout=self.budget_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise
        if self.process.returncode == -signal.SIGKILL:
            self._end_agents()
        _, alive = psutil.wait_procs(list(self._seen.values()), 60)
        assert not alive, f"left behind: {alive}"
        self.output += stdout + stderr
        self.error = stderr
        # Ray's own words go to its log files.
        assert "(raylet)" not in self.output
        return self.output

    def _end_agents(self) -> None:
        """Ray's agents of a node outlive a driver that is killed."""
        for process in self._seen.values():
            try:
                if (process.cmdline() or [""])[0].startswith(AGENTS):
                    process.kill()
            except psutil.NoSuchProcess:
                continue

    def end(self) -> None:
        """End whatever is left of the run, by number."""
        if self.process.poll() is None:
            self.below()
            self.process.kill()
            self.process.communicate()
        for process in self._seen.values():
            if process.is_running():
                process.kill()

    def refused(self, exit_code: int) -> str:
        """The last line on standard error of a driver that does not end well."""
        self.leave()
        assert self.process.returncode == exit_code, self.output
        return self.error.splitlines()[-1]

    def lines(self) -> list[dict[str, Any]]:
        """The metrics, without wall-clock figures."""
        return timeless(read_metrics(str(self.run)))


Hit = Callable[[], object]


def _workers(run: FaultyRun, *ranks: int) -> Hit:
    victims = [run.worker(rank) for rank in ranks]
    return lambda: [victim.kill() for victim in victims]


def _driver_and_worker(run: FaultyRun) -> Hit:
    worker = run.worker(0)
    return lambda: (run.process.kill(), worker.kill())


def _all_at_once(run: FaultyRun) -> Hit:
    below = run.below()

    def hit() -> None:
        for victim in (run.process, *below):
            # Some end with those before them.
            with suppress(psutil.NoSuchProcess):
                victim.kill()

    return hit


def _hang(run: FaultyRun) -> Hit:
    worker = run.worker(1)
    return worker.suspend


FAULTS: dict[str, Callable[[FaultyRun], Hit]] = {
    "kill -9 of worker 0": lambda run: _workers(run, 0),
    "kill -9 of worker 1": lambda run: _workers(run, 1),
    "kill -9 of all workers": lambda run: _workers(run, 0, 1),
    "kill -9 of the controller": lambda run: run.below(CONTROLLER)[0].kill,
    "kill -9 of the driver": lambda run: run.process.kill,
    "kill -9 of the driver and a worker": _driver_and_worker,
    "kill -9 of the driver and all below": _all_at_once,
    "SIGSTOP of worker 1": _hang,
}
"""Each by its name: looks for its victims, and gives what is done to them. A killed driver is resumed."""


@dataclass
class Account:
    """All blows of a session, for the table at its end."""

    rows: dict[str, list[int]] = field(default_factory=dict)

    def settle(self, run: FaultyRun, undisturbed: FaultyRun) -> None:
        """Take in the blows of a run that has ended, and what it learned otherwise than the undisturbed one."""
        lines = {line["step"]: line for line in run.lines()}
        samples = {line["step"]: line["samples"] for line in undisturbed.lines()}
        lost = {
            line["step"]: line["samples"] - samples.get(line["step"] - 1, 0)
            for line in undisturbed.lines()
            if lines.get(line["step"]) != line
        }
        for blow in run.blows:
            around = range(blow.step - blow.steps_redone, blow.step + 2)
            self.add(blow.fault, blow.steps_redone, sum(lost.get(step, 0) for step in around))

    def add(self, fault: str, steps_redone: int, records_lost: int = 0) -> None:
        """Take in one fault more that a run survived."""
        row = self.rows.setdefault(fault, [0, 0, 0, 0])
        for place, number in enumerate((1, 1, records_lost, steps_redone)):
            row[place] += number

    def table(self) -> list[str]:
        """One line a fault."""
        lines = [f"{'fault':<36} {'times':>6} {'survived':>9} {'records lost':>13} {'steps redone':>13}"]
        for fault, (times, survived, lost, redone) in sorted(self.rows.items()):
            lines.append(f"{fault:<36} {times:>6} {survived:>9} {lost:>13} {redone:>13}")
        return lines


ACCOUNT = Account()
