"""Do time and memory of a search stay the same however many trials it has had?

Command:  python -m benchmarks.many_trials --out many_trials.json
Cost:     two searches of 200 trials of a second each, two at a time, that train nothing: about 4 minutes.
Runs:     the search's own study, searcher, scheduler and Tuner over a toy objective, with the whole space and TPE.
          `whole`: every trial runs its second out, so that all cost the same. `stopped`: ASHA stops the weak, as in any
          search, so that trials cost what their rungs do, and only what the driver does for each can be compared.
Ratios:   of `whole`, seconds a trial: the mean of the last quarter of the trials over that of the second one; at most
          1.1 wanted. Of both, the driver's processor seconds a trial in the same way, and its memory: KiB that it grows
          a trial, fitted over the last half, and over the quarter before. Open files, placement groups and actors are
          counted after the first quarter and at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.record import DEFAULT_WORK, Figures, machine, run_cell, write_record
from mlim_ray.command_line.errors import plain_errors

GOAL = 1.1
_MODULE = "benchmarks.many_trials"
_KIB = 1024
_CELLS = ("whole", "stopped")


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200, help="of the search (200)")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a whole trial takes (1)")
    parser.add_argument("--at-a-time", type=int, default=2, help="trials that run at a time (2)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the search")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_search(given, stops_early=given.cell == "stopped")))
        return 0
    if given.smoke:
        given.trials, given.seconds = 16, 0.05
    size = ("--trials", given.trials, "--seconds", given.seconds, "--at-a-time", given.at_a_time, "--work", given.work)
    started_on = machine()
    searches: dict[str, Figures] = {}
    for name in _CELLS:
        rows = run_cell(_MODULE, name, *size)["rows"]
        summary = summary_of([After(*row) for row in rows])
        searches[name] = {"summary": summary, "rows": rows}
        print(
            f"{name}: {len(rows)} trials, {summary['seconds']:.3f} s each in the last quarter, "
            f"{summary['seconds_ratio']:.2f} of the second one; driver {summary['cpu_seconds']:.3f} s of processor "
            f"time ({summary['cpu_ratio']:.2f}), {summary['kib_a_trial']:.0f} KiB a trial "
            f"({summary['kib_a_trial_before']:.0f} before); {summary['counts']}",
            flush=True,
        )
    print(f"time of a trial {searches['whole']['summary']['seconds_ratio']:.2f} (at most {GOAL} wanted)")
    record = {"trials": given.trials, "seconds": given.seconds, "at_a_time": given.at_a_time, "goal": GOAL}
    write_record(given.out, {"machine": started_on, **record, "searches": searches})
    return 0


class After(NamedTuple):
    """What the driver had when a trial ended."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int
    open_files: int
    placement_groups: int
    actors: int


def summary_of(rows: Sequence[After]) -> Figures:
    """The growth of time and memory over the trials."""
    quarter = len(rows) // 4
    periods = [after.seconds - before.seconds for before, after in pairwise(rows)]
    cpu = [after.cpu_seconds - before.cpu_seconds for before, after in pairwise(rows)]
    counts = ("open_files", "placement_groups", "actors")
    return {
        "seconds": statistics.mean(periods[-quarter:]),
        "seconds_ratio": _growth(periods, quarter),
        "cpu_seconds": statistics.mean(cpu[-quarter:]),
        "cpu_ratio": _growth(cpu, quarter),
        "kib_a_trial": _slope([row.rss_bytes / _KIB for row in rows[-2 * quarter :]]),
        "kib_a_trial_before": _slope([row.rss_bytes / _KIB for row in rows[quarter : 2 * quarter]]),
        "rss_mib": [round(row.rss_bytes / _KIB**2, 1) for row in rows[quarter - 1 :: quarter]],
        "counts": {name: [getattr(rows[quarter], name), getattr(rows[-2], name)] for name in counts},
    }


def _growth(values: Sequence[float], quarter: int) -> float:
    """The mean of the last quarter over that of the second one: the first has what is done once."""
    return statistics.mean(values[-quarter:]) / max(1e-9, statistics.mean(values[quarter : 2 * quarter]))


def _slope(values: Sequence[float]) -> float:
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def _search(given: argparse.Namespace, *, stops_early: bool) -> Figures:
    """A search of toy trials in this process."""
    from mlim_ray.pipelines.cluster import LOCAL, connect

    work = os.path.join(given.work, "many-trials")
    shutil.rmtree(work, ignore_errors=True)
    with connect(LOCAL, dashboard=False):
        return {"rows": run_toys(work, given.trials, given.seconds, given.at_a_time, stops_early=stops_early)}


def run_toys(work: str, num_trials: int, seconds: float, at_a_time: int, *, stops_early: bool = True) -> list[After]:
    """A search of toy trials on the Ray that this process has joined; a row for each trial that ended."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from benchmarks.toy_trial import ToyTrial
    from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
    from mlim_ray.pipelines.resources import WorkerPlan
    from mlim_ray.pipelines.search.execute import run_study, with_plan
    from mlim_ray.pipelines.search.study import SearchStudy

    os.makedirs(work, exist_ok=True)
    search = SearchConfig(num_trials=num_trials, max_samples=900, stop_early=stops_early)
    config = SearchRunConfig(train=TrainConfig(learning_rate=1e-3), search=search)
    process, started = psutil.Process(), time.monotonic()
    rows: list[After] = []

    def on_change() -> None:
        if sum(trial.state.is_finished() for trial in study.trials()) > len(rows):
            cpu = process.cpu_times()
            rows.append(
                After(
                    time.monotonic() - started,
                    cpu.user + cpu.system,
                    process.memory_info().rss,
                    process.num_fds(),
                    *_counts(),
                )
            )

    study = SearchStudy(JournalStorage(JournalFileBackend(os.path.join(work, "study.log"))), config, on_change)
    plan = WorkerPlan(1, 1.0 / at_a_time, 0.0, 1, at_a_time)
    parameters = {"rungs": search.rungs, "seconds": seconds}
    run_study(study, search, plan, with_plan(ToyTrial, plan, **parameters), name="toys", folder=os.path.abspath(work))
    return rows


def _counts() -> tuple[int, int]:
    """Placement groups and actors that are not dead."""
    from ray._private.state import actors
    from ray.util import placement_group_table

    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    living = [actor for actor in actors().values() if actor["State"] != "DEAD"]
    return len(groups), len(living)


if __name__ == "__main__":
    sys.exit(main())
