"""How many records does a search train on until it is as good as random search with its whole budget?

Command:  python -m benchmarks.search_efficiency --out search_efficiency.json
Cost:     5 seeds of two searches each: about 20 minutes on two idle cores, half an hour with --trials 52. A record of
          an earlier run in --out is gone on with: a seed and method that it holds is not searched again, and one that
          was interrupted is resumed.
Methods:  `asha` is what experiments/tune_mam.py does: trials from TPE, the weak ones stopped at rungs. `random` draws
          every trial at random and trains it to the end. Both run the command itself, on a generated catalogue, two
          trials at a time, with the same reference trials first and without the confirmation. Most trials of `asha`
          are stopped at a ninth of the budget, so that it may have more of them for as many records.
Ratios:   the target is the median over seeds of the best score that random search has at its end. `ratio` is the
          median of the records that `asha` trains on until a trial has it, over all that random search trains on; at
          most a third is wanted. `ratio_to_first` is over what random search itself trains on until a trial has it.
          References count as spent by both, and never as having found anything; `without_references` leaves them out of
          both, for they are the same trials whatever proposes the others. Of trials that run side by side the earlier
          ones count in full. Intervals are a bootstrap over seeds (95 %), which draws the target anew too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.best_so_far import Ended, best_of, interval_of, ratio_of, samples_to
from benchmarks.record import DEFAULT_WORK, ROOT, Figures, machine, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.data.storage import exists

GOAL = 1 / 3
_MODULE = "benchmarks.search_efficiency"
_FLAGS = {
    "asha": ("--search.sampler", "tpe", "--search.num-rungs", "3"),
    "random": ("--search.sampler", "random", "--search.num-rungs", "1"),
}
_PROBE = ("--probe.num-records", "128", "--probe.linear-train-records", "100")


class _Budget(NamedTuple):
    """Of every search."""

    records: int
    """of the generated catalogue"""
    trials: int
    """of random search, the references included"""
    asha_trials: int
    """the same of the other search"""
    samples: int
    """of a full trial"""


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="searches of each method (5)")
    parser.add_argument("--records", type=int, default=4_000, help="records of the generated catalogue (4,000)")
    parser.add_argument("--trials", type=int, default=28, help="of random search, the references included (28)")
    parser.add_argument("--asha-trials", type=int, default=52, help="the same of ASHA with TPE (52)")
    parser.add_argument("--samples", type=int, default=2_400, help="records that a full trial sees (2,400)")
    parser.add_argument("--out", help="JSON file for the figures; gone on with where it is there")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the catalogue and the searches")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    given = parser.parse_args(argv)
    if given.smoke:
        given.seeds, given.records, given.samples = 1, 600, 300
        given.trials, given.asha_trials = 6, 8
    budget = _Budget(given.records, given.trials, given.asha_trials, given.samples)
    started_on = machine()
    cells = _earlier(given.out, budget)
    for seed in range(given.seeds):
        for method in _FLAGS:
            name = f"{method} {seed}"
            if name not in cells:
                cells[name] = _search(method, seed, budget, given.work)
                write_record(given.out, {"machine": started_on, "budget": budget._asdict(), "cells": cells})
            print(f"{name}: best {best_of(_trials(cells[name])):.4f} in {cells[name]['seconds']:.0f} s", flush=True)
    summary = _summary(cells, given.seeds)
    record = {"budget": budget._asdict(), "goal": round(GOAL, 3), "summary": summary, "cells": cells}
    write_record(given.out, {"machine": started_on, **record})
    return 0


def _search(method: str, seed: int, budget: _Budget, work: str) -> Figures:
    """Run one search to its end, or go on with one that was interrupted; its trials in order."""
    out = os.path.join(work, "search-efficiency", "-".join(map(str, (*budget, method, seed))))
    num_trials = budget.asha_trials if method == "asha" else budget.trials
    command = [
        *(sys.executable, str(ROOT / "experiments" / "tune_mam.py"), "--data", f"generated:{budget.records}"),
        *("--out", out, "--resume" if exists(os.path.join(out, "config.yaml")) else "--overwrite"),
        *("--trials", str(num_trials), "--max-samples", str(budget.samples), "--seed", str(seed)),
        *("--model.size", "tiny", "--train.batch-size", "16", "--search.confirm", "false"),
        *("--address", "local", "--no-dashboard", "--json", *_PROBE, *_FLAGS[method]),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    found = json.loads(done.stdout.splitlines()[-1])["trials"]
    names = ("role", "state", "samples", "score")
    rows = [{name: row[name] for name in names} for row in sorted(found, key=lambda row: int(row["trial"]))]
    return {"seconds": round(time.perf_counter() - started, 1), "trials": rows}


def _trials(cell: Figures, *, with_references: bool = True) -> list[Ended]:
    """A cell's trials as the arithmetic wants them."""
    return [
        Ended(row["samples"], row["score"] if row["role"] == "searched" and row["state"] == "COMPLETE" else None)
        for row in cell["trials"]
        if with_references or row["role"] == "searched"
    ]


def _earlier(out: str | None, budget: _Budget) -> dict[str, Figures]:
    if out is None or not Path(out).is_file():
        return {}
    record = json.loads(Path(out).read_text())
    if record.get("budget") != budget._asdict():
        raise ValueError(f"--out {out} holds searches of another budget, {record.get('budget')}; name another file")
    return dict(record["cells"])


def _summary(cells: dict[str, Figures], num_seeds: int) -> Figures:
    asha, random = ([_trials(cells[f"{method} {seed}"]) for seed in range(num_seeds)] for method in _FLAGS)
    found, (low, high) = ratio_of(asha, random), interval_of(asha, random)
    print(
        f"to reach {found.target:.4f}: asha {found.samples:,.0f} records, of the {found.budget:,.0f} of random search: "
        f"ratio {found.ratio:.2f}, 95 % [{low:.2f}, {high:.2f}] (at most {GOAL:.2f} wanted); "
        f"of what it needs itself {found.ratio_to_first:.2f}"
    )
    own = [
        [_trials(cells[f"{method} {seed}"], with_references=False) for seed in range(num_seeds)] for method in _FLAGS
    ]
    alone, (low_alone, high_alone) = ratio_of(*own), interval_of(*own)
    print(f"without the references: ratio {alone.ratio:.2f}, 95 % [{low_alone:.2f}, {high_alone:.2f}]")
    by_method = {"asha": asha, "random": random}
    return {
        **{name: _known(value) for name, value in found._asdict().items()},
        "interval": [_known(low), _known(high)],
        "without_references": {
            "ratio": _known(alone.ratio),
            "interval": [_known(low_alone), _known(high_alone)],
            "samples": _known(alone.samples),
            "budget": _known(alone.budget),
        },
        "samples_by_seed": {
            name: [_known(samples_to(search, found.target)) for search in searches]
            for name, searches in by_method.items()
        },
        "best_by_seed": {name: list(map(_known, map(best_of, searches))) for name, searches in by_method.items()},
    }


def _known(value: float) -> float | None:
    """A number as JSON can hold it; None: it was never reached."""
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
