"""What does a trial of a search cost beside its training steps and its evaluation?

Command:  python -m benchmarks.trial_overhead --out trial_overhead.json
Cost:     24 short trials of the model tiny, searched and then trained by a bare loop: about 2 minutes on two cores.
Ways:     search  the search itself, through Ray Tune: from the end of one trial to the end of the next in the same
                  process, with journal, checkpoints, metrics and all that a search does between them.
          bare    the same trials one after the other in a plain process: their steps and their evaluation at each rung,
                  nothing else.
Figures:  `overhead` of a trial is its time in the search less that of its own steps and evaluation; `over bare` is less
          that of the bare loop's. Median over trials, the first of each process left out; at most 0.3 s wanted. The
          parts of the overhead: `between` two trials (driver, Tune, journal), `begin` (model, files), `rungs` (from one
          rung to the next: driver, Tune, journal), and `save` (checkpoint, metrics).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from benchmarks.record import DEFAULT_WORK, Figures, machine, median, run_cell, write_record
from benchmarks.timed_trial import TIMES, Call, TimedTrial, read_calls
from mlim_ray.command_line.errors import plain_errors

GOAL_S = 0.3
_RAY_NICENESS = 15
_MODULE = "benchmarks.trial_overhead"


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=24, help="of the search (24)")
    parser.add_argument("--records", type=int, default=2_000, help="records of the generated catalogue (2,000)")
    parser.add_argument("--samples", type=int, default=960, help="records that a full trial sees (960)")
    parser.add_argument("--at-a-time", type=int, default=1, help="trials that run at a time (1)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the catalogue and the search")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_CELLS[given.cell](given)))
        return 0
    if given.smoke:
        given.trials, given.records, given.samples = 6, 400, 300
    size = ("--trials", given.trials, "--records", given.records, "--samples", given.samples, "--work", given.work)
    started_on = machine()
    searched = run_cell(_MODULE, "search", *size, "--at-a-time", given.at_a_time)["calls"]
    bare: dict[str, float] = run_cell(_MODULE, "bare", *size)["seconds"]
    trials = [
        trial._replace(over_bare_s=trial.seconds - bare[str(trial.number)])
        for trial in trials_of([Call(*call) for call in searched])
    ]
    summary = {name: median(getattr(trial, name) for trial in trials) for name in Trial._fields[1:]}
    print(
        f"overhead of a trial: {summary['overhead_s']:.3f} s (between {summary['between_s']:.3f}, begin "
        f"{summary['begin_s']:.3f}, rungs {summary['rungs_s']:.3f}, save {summary['save_s']:.3f}); over the bare loop "
        f"{summary['over_bare_s']:.3f} s; median of {len(trials)} trials (at most {GOAL_S} wanted)"
    )
    record = {"at_a_time": given.at_a_time, "goal_s": GOAL_S, "summary": summary}
    rows = [{name: round(value, 4) for name, value in trial._asdict().items()} for trial in trials]
    write_record(given.out, {"machine": started_on, **record, "trials": rows})
    return 0


class Trial(NamedTuple):
    """Where the time of one trial went, in seconds."""

    number: int
    seconds: float
    """from the end of the one before in the same process to its own"""
    training_s: float
    measuring_s: float
    between_s: float
    begin_s: float
    rungs_s: float
    save_s: float
    overhead_s: float
    """all but training and measuring"""
    over_bare_s: float = 0.0
    """`seconds` less what the bare loop takes"""


def trials_of(calls: Sequence[Call]) -> list[Trial]:
    """The trials that another one went before in the same process."""
    found = []
    for pid in dict.fromkeys(call.pid for call in calls):
        own = [call for call in calls if call.pid == pid]
        numbers = list(dict.fromkeys(call.number for call in own))
        by_number = [[call for call in own if call.number == number] for number in numbers]
        found += [_trial(before[-1].stop, each) for before, each in pairwise(by_number)]
    return found


def _trial(end_of_last: float, calls: Sequence[Call]) -> Trial:
    begin, *steps = calls
    seconds = calls[-1].stop - end_of_last
    training_s, measuring_s = sum(call.training_s for call in steps), sum(call.measuring_s for call in steps)
    return Trial(
        number=begin.number,
        seconds=seconds,
        training_s=training_s,
        measuring_s=measuring_s,
        between_s=begin.start - end_of_last,
        begin_s=begin.stop - begin.start,
        rungs_s=sum(later.start - earlier.stop for earlier, later in pairwise(calls)),
        save_s=sum(call.stop - call.start for call in steps) - training_s - measuring_s,
        overhead_s=seconds - training_s - measuring_s,
    )


def _search(given: argparse.Namespace) -> Figures:
    """The search, with trials that tell what they do."""
    import experiments.tune_mam as experiment
    from mlim_ray.command_line.experiment import parse_search
    from mlim_ray.pipelines.search import execute
    from mlim_ray.pipelines.search.search import search

    out = _out(given)
    times = f"{out}.times"
    os.makedirs(os.path.dirname(out), exist_ok=True)
    if os.path.exists(times):
        os.remove(times)
    shutil.rmtree(out, ignore_errors=True)
    os.environ[TIMES] = times
    vars(execute)["PretrainTrial"] = TimedTrial
    flags = [
        *("--data", f"generated:{given.records}", "--out", out, "--address", "local", "--no-dashboard"),
        *("--trials", str(given.trials), "--max-samples", str(given.samples), "--model.size", "tiny"),
        *("--search.max-concurrent-trials", str(given.at_a_time), "--search.confirm", "false"),
        *("--probe.num-records", "64", "--probe.linear-train-records", "100"),
    ]
    search(parse_search(flags, experiment.build))
    return {"calls": read_calls(times)}


def _bare(given: argparse.Namespace) -> Figures:
    """The trials of that search again: seconds of steps and evaluation of each, by number."""
    import torch

    from mlim_ray.config import SearchRunConfig
    from mlim_ray.config.files import parse_config
    from mlim_ray.data.prepared import PreparedSet
    from mlim_ray.data.storage import read_bytes
    from mlim_ray.evaluation.measures import Measurer
    from mlim_ray.pipelines.search.space import trial_config
    from mlim_ray.pipelines.search.study import parameters_of, rungs_of
    from mlim_ray.pipelines.search.study_store import open_study
    from mlim_ray.training.build import build_trainer, run_masking
    from mlim_ray.training.run_folder import RunFolder
    from mlim_ray.training.stream import TRAIN_SPLIT, read_groups, resident_batches

    folder = RunFolder(_out(given))
    environment = folder.read_json("environment.json")
    path = folder.file("config.yaml")
    base = parse_config(read_bytes(path), path, SearchRunConfig())
    prepared = PreparedSet.open(environment["prepared"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # As the processes that Ray starts: what else the machine does goes first.
    os.nice(_RAY_NICENESS)
    torch.set_num_threads(environment["threads_per_worker"])
    records = read_groups(prepared, range(prepared.num_groups(TRAIN_SPLIT)))
    seconds: dict[str, float] = {}
    for trial in open_study(folder.path).trials:
        config = trial_config(base, parameters_of(trial))
        trainer = build_trainer(config, prepared, device)
        order, shape = trainer.order, trainer.model.config
        measurer = Measurer(prepared, base, base.search.objectives, shape.num_cells)
        masking, lanes = run_masking(config, shape), order.lanes_of(0, 1)
        batches = resident_batches(records, order, masking, lanes, 0, config.train.num_steps)
        start = time.monotonic()
        for samples in rungs_of(trial):
            trainer.run(batches, order.steps_for(samples), report=lambda line: None)
            measurer(trainer.model)
        seconds[str(trial.number)] = time.monotonic() - start
    return {"seconds": seconds}


_CELLS: dict[str, Callable[[argparse.Namespace], Figures]] = {"search": _search, "bare": _bare}


def _out(given: argparse.Namespace) -> str:
    name = "-".join(map(str, (given.trials, given.records, given.samples)))
    return os.path.join(given.work, "trial-overhead", name)


if __name__ == "__main__":
    sys.exit(main())
