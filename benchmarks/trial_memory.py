"""How much memory do several trials at a time take beside one?

Command:  python -m benchmarks.trial_memory --out trial_memory.json
Cost:     a set of 80,000 records (about 200 MiB decoded) and one of 2,000, with one trial and with four: about 4
          minutes and 1 GB of disk on two cores.
Measured: heaps and stacks of the driver, Ray and all trials (pages that they share count once) and what the object
          store has taken of shared memory, after every trial has trained to its first rung and was scored.
Ratios:   `shared` is what all have in common (everything but the trials' own heaps) with several trials over that with
          one: 1 where no trial copies a record. `over one` is all the memory with several, less that many models, over
          all the memory with one; at most 1.3 wanted. A model is what training it adds to the heap of a process that
          has loaded the code. What the code takes of each process is reported too: a set has to be as large as some of
          those before `over one` says anything of records.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.catalogue import write_catalogue
from benchmarks.processes import memory_of_tree
from benchmarks.record import DEFAULT_WORK, Figures, machine, run_cell, write_record
from mlim_ray.command_line.errors import plain_errors

GOAL = 1.3
_MODULE = "benchmarks.trial_memory"
_SIZE = 32
_MIB = 2**20
_CODE_OF_A_TRIAL = ("mlim_ray.pipelines.search.trial", "transformers")
"""the second one comes with the first model"""


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, nargs="+", default=(2_000, 80_000), help="of the sets (2,000 80,000)")
    parser.add_argument("--trials", type=int, default=4, help="that run at a time (4)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the sets")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_CELLS[given.cell](given)))
        return 0
    if given.smoke:
        given.records, given.trials = (400,), 2
    started_on = machine()
    sets: dict[str, Figures] = {}
    for num_records in given.records:
        size = ("--records", num_records, "--work", given.work)
        run_cell(_MODULE, "prepare", *size)
        one, several = (run_cell(_MODULE, "hold", *size, "--trials", number) for number in (1, given.trials))
        found = sets[str(num_records)] = {**_ratios(one, several, given.trials), "one": one, "several": several}
        print(
            f"{num_records} records, {one['records_mib']:.0f} MiB decoded: {one['all_mib']:.0f} MiB with one trial, "
            f"{several['all_mib']:.0f} with {given.trials}; shared {found['shared']:.2f}, over one "
            f"{found['over_one']:.2f} (at most {GOAL} wanted); a model {found['model_mib']:.0f} MiB, the code of a "
            f"process {found['code_mib']:.0f} MiB",
            flush=True,
        )
    write_record(given.out, {"machine": started_on, "trials": given.trials, "goal": GOAL, "sets": sets})
    return 0


def _ratios(one: Figures, several: Figures, num_trials: int) -> Figures:
    model_mib = max(sum(several["trial_mib"]) - sum(several["code_mib"]), 0.0) / num_trials
    return {
        "model_mib": model_mib,
        "code_mib": sum(several["code_mib"]) / num_trials,
        "shared": (several["all_mib"] - sum(several["trial_mib"])) / (one["all_mib"] - sum(one["trial_mib"])),
        "over_one": (several["all_mib"] - num_trials * model_mib) / one["all_mib"],
    }


def _prepare(given: argparse.Namespace) -> Figures:
    from mlim_ray.config import PrepareConfig
    from mlim_ray.data.sources import resolve_prepare_config
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.prepare import prepare

    source = write_catalogue(given.work, given.records[0], _SIZE)
    with connect(LOCAL, dashboard=False):
        prepare(source, _set_path(given), resolve_prepare_config(PrepareConfig(), _SIZE))
    return {}


def _hold(given: argparse.Namespace) -> Figures:
    """Let so many trials go to their first rung, each in its process, and look at all of them then."""
    import ray

    from mlim_ray.config import SearchConfig, SearchRunConfig
    from mlim_ray.data.prepared import PreparedSet
    from mlim_ray.evaluation.measures import Measurer
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.feed import put_resident, resident_bytes
    from mlim_ray.pipelines.search.space import reference_parameters
    from mlim_ray.pipelines.search.trial_job import TRIALS, TrialJob
    from mlim_ray.training.build import model_config
    from mlim_ray.training.resolve import resolve_size
    from mlim_ray.training.stream import TRAIN_SPLIT

    prepared = PreparedSet.open(_set_path(given))
    search = os.path.join(given.work, "trial-memory-search")
    shutil.rmtree(search, ignore_errors=True)
    base = resolve_size(SearchRunConfig(search=SearchConfig(max_samples=5_760, num_rungs=2)), has_gpu=False)
    config = base.model_copy(update={"train": base.train.model_copy(update={"num_steps": 90})})
    with connect(LOCAL, dashboard=False):
        measurer = Measurer(prepared, config, config.search.objectives, model_config(config, prepared).num_cells)
        job = TrialJob(config, prepared, search, TRIALS, 1, put_resident(prepared), ray.put(measurer))
        del measurer
        processes = [ray.remote(num_cpus=0)(_TrialProcess).remote() for _ in range(given.trials)]
        pids = ray.get([process.load.remote() for process in processes])
        code = [memory_of_tree(pid).own / _MIB for pid in pids]
        parameters = reference_parameters("paper", config, config.dimensions)
        ray.get([process.train.remote(job, number, parameters) for number, process in enumerate(processes)])
        trials = [memory_of_tree(pid).own / _MIB for pid in pids]
        memory = memory_of_tree(os.getpid())
    needed = resident_bytes(
        prepared.num_records(TRAIN_SPLIT), prepared.manifest.image.size, prepared.manifest.text.max_tokens
    )
    return {
        "all_mib": (memory.own + memory.store) / _MIB,
        "store_mib": memory.store / _MIB,
        "records_mib": needed / _MIB,
        "trial_mib": trials,
        "code_mib": code,
    }


class _TrialProcess:
    """A process of one trial, as Tune's is."""

    def load(self) -> int:
        """Load all that a trial's code needs; gives the process."""
        for name in _CODE_OF_A_TRIAL:
            importlib.import_module(name)
        return os.getpid()

    def train(self, job: Any, number: int, parameters: dict[str, Any]) -> None:
        """Go to the first rung, and stay there."""
        from mlim_ray.pipelines.search.trial import PretrainTrial
        from mlim_ray.pipelines.search.trial_words import NUMBER, PARAMETERS, REPORTED, ROLE, SEED

        config = {NUMBER: number, PARAMETERS: parameters, ROLE: "searched", SEED: job.config.train.seed, REPORTED: 0}
        self._trial = PretrainTrial.__new__(PretrainTrial)
        self._trial.setup(config, job)
        self._trial.step()


_CELLS: dict[str, Callable[[argparse.Namespace], Figures]] = {"prepare": _prepare, "hold": _hold}


def _set_path(given: argparse.Namespace) -> str:
    return os.path.join(given.work, f"trial-memory-{given.records[0]}")


if __name__ == "__main__":
    sys.exit(main())
