"""A search by `experiments/tune_mam.py` that things are done to: started, killed, resumed, and read back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from mlim_ray.data import storage
from mlim_ray.pipelines.search.study_store import study_names
from mlim_ray.training.run_folder import RunFolder
from tests.pipelines.faulty_runs import AGENTS

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = str(ROOT / "experiments" / "tune_mam.py")
BUDGET_S = 600.0
# One trial at a time, so that two searches of one seed are the same search.
FLAGS = [
    *("--data", "generated:300", "--max-samples", "216", "--train.batch-size", "8", "--no-dashboard", "--json"),
    *("--search.max-concurrent-trials", "1", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--train.log-every-steps", "5", "--search.num-confirm-seeds", "2", "--trials", "7"),
]
SMALL = [
    *("--data", "generated:300", "--max-samples", "64", "--train.batch-size", "8", "--no-dashboard", "--json"),
    *("--search.max-concurrent-trials", "1", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--search.num-rungs", "1", "--trials", "1", "--confirm", "false"),
]
"""a search of one short trial"""

Table = list[tuple[Any, ...]]


@dataclass
class SearchRun:
    """A search in `out`, a path or an s3 address; `folder` is where it is started from.

    Its journals of searches on S3 lie in `folder/state`, as if that were the home of the machine.
    """

    folder: Path
    out: str
    flags: list[str] = field(default_factory=lambda: list(FLAGS))
    environment: dict[str, str] = field(default_factory=dict)
    """beside this process's own"""
    process: subprocess.Popen[str] | None = None
    said: str = ""
    """by the last driver that was left"""
    summary: dict[str, Any] = field(default_factory=dict)
    """of a driver that ended well"""
    _seen: dict[int, psutil.Process] = field(default_factory=dict)

    def start(self, *flags: str) -> SearchRun:
        """Start its driver; `flags` take the place of its own of the same name."""
        given = {flag for flag in flags if flag.startswith("--")}
        own = [
            word
            for place, word in enumerate(self.flags)
            if word not in given and (word.startswith("--") or self.flags[place - 1] not in given)
        ]
        return self._start(*own, *flags)

    def resume(self, *flags: str) -> SearchRun:
        """Start its driver again, as the message of a stopped search says."""
        return self._start("--resume", "--no-dashboard", "--json", *flags)

    def _start(self, *flags: str) -> SearchRun:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        # Threads that wait must not take the cores of a busy machine from those that work.
        environment |= {"OMP_WAIT_POLICY": "PASSIVE"}
        environment |= {"XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= self.environment
        self.process = subprocess.Popen(
            [sys.executable, EXPERIMENT, "--out", self.out, *flags],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # What a shell starts in the background does not hear Ctrl-C, and neither would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        return self

    @property
    def driver(self) -> subprocess.Popen[str]:
        assert self.process is not None, "not started"
        return self.process

    def wait_for(self, due: Callable[[], bool]) -> None:
        """Until `due`, which must come before the driver ends."""
        tick = threading.Event()
        for _ in range(int(BUDGET_S * 50)):
            if due() or self.driver.poll() is not None:
                break
            tick.wait(0.02)
        assert self.driver.poll() is None, self.driver.communicate(timeout=BUDGET_S)
        assert due()

    def wait_for_lines(self, num_lines: int) -> None:
        """Until the journal has grown to so many lines."""
        self.wait_for(lambda: self.num_lines() >= num_lines)

    def below(self, name: str = "") -> list[psutil.Process]:
        """Processes that the driver started, by the start of their title."""
        found = []
        for process in psutil.Process(self.driver.pid).children(recursive=True):
            self._seen[process.pid] = process
            with contextlib.suppress(psutil.NoSuchProcess):
                if (process.cmdline() or [""])[0].startswith(name):
                    found.append(process)
        return found

    def kill(self) -> None:
        """kill -9 the driver; gives when all that it started has ended."""
        self.below()
        os.killpg(self.driver.pid, signal.SIGKILL)
        self.leave()

    def leave(self) -> tuple[str, str]:
        """What the driver said, once it and all below it have ended."""
        said = self.driver.communicate(timeout=BUDGET_S)
        for process in self._seen.values():
            # Ray's agents of a node outlive a driver that is killed.
            with contextlib.suppress(psutil.NoSuchProcess):
                if (process.cmdline() or [""])[0].startswith(AGENTS):
                    process.kill()
        _, alive = psutil.wait_procs(list(self._seen.values()), 60)
        assert not alive, f"left behind: {alive}"
        self.said = said[0] + said[1]
        return said

    def finish(self) -> dict[str, Any]:
        """The summary of a search that ends well."""
        stdout, stderr = self.leave()
        assert self.driver.returncode == 0, stdout + stderr
        self.summary = json.loads(stdout.splitlines()[-1])
        return self.summary

    def refused(self, exit_code: int = 2) -> str:
        """The last line on standard error of a driver that does not end well."""
        stdout, stderr = self.leave()
        assert self.driver.returncode == exit_code, stdout + stderr
        return stderr.splitlines()[-1]

    def end(self) -> None:
        """End what is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    @property
    def journal(self) -> Path:
        """The journal that is written to."""
        if not storage.is_remote(self.out):
            return Path(self.out) / "study.log"
        names = study_names(RunFolder(self.out))
        return self.folder / "state" / "mlim-ray" / (names.search if names else "not yet") / "study.log"

    def num_lines(self) -> int:
        """Lines of the journal."""
        try:
            return self.journal.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def trials(self, kind: str = "search") -> list[FrozenTrial]:
        """The trials of one of its studies so far: `search` or `confirmation`."""
        if not self.journal.exists():
            return []
        return trials_in(JournalStorage(JournalFileBackend(str(self.journal))), self.out, kind)

    def tables(self) -> tuple[Table, Table]:
        """What both studies found, of a search that has ended."""
        if storage.is_remote(self.out):
            path = self.folder / "study.copy.log"
            path.write_bytes(storage.read_bytes(RunFolder(self.out).file("study.log")))
            kept: BaseStorage = JournalStorage(JournalFileBackend(str(path)))
        else:
            kept = JournalStorage(JournalFileBackend(str(self.journal)))
        return tables_in(kept, self.out)


def trials_in(kept: BaseStorage, out: str, kind: str = "search") -> list[FrozenTrial]:
    """The trials of one of the studies of the search in `out`; none where it is not there yet."""
    names = study_names(RunFolder(out))
    if names is None:
        return []
    name = names.search if kind == "search" else names.confirmation
    try:
        return optuna.load_study(study_name=name, storage=kept).trials
    except (KeyError, ValueError):
        return []


def tables_in(kept: BaseStorage, out: str) -> tuple[Table, Table]:
    """All that both studies hold but the times."""
    first, second = (
        [
            (trial.number, trial.state.name, trial.params, trial.values, trial.intermediate_values, trial.user_attrs)
            for trial in trials_in(kept, out, kind)
        ]
        for kind in ("search", "confirmation")
    )
    return first, second
