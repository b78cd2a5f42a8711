"""Does the score at the first rung tell which trials will be good, and does a score without masks agree?

Command:  python -m benchmarks.rank_correlation SEARCH --out rank_correlation.json
Input:    a finished search whose trials all ran to the end and were measured by all probes at every rung:
          python experiments/tune_mam.py --data SOURCE --trials 16 --search.stop-early false --confirm false
              --score "probe+0*linear_picture+0*linear_with_title" --out SEARCH
Figures:  Spearman's rank correlation over the trials, with a 95 % interval from resampled trials: of each measure at
          the first rung and each at the end, of each at every rung and itself at the end, and of all pairs at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from optuna.trial import TrialState

from benchmarks.record import Figures, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.config.score import MEASURES
from mlim_ray.evaluation.rank_correlation import rank_correlation
from mlim_ray.pipelines.search.study import parameters_of, role_of, rungs_of
from mlim_ray.pipelines.search.study_store import open_study

_FEWEST_TRIALS = 4


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Print the correlations of a search, and write them with its trials."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.rank_correlation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("search", help="folder of a finished search")
    parser.add_argument("--out", help="JSON file for the figures")
    given = parser.parse_args(argv)
    trials = [trial for trial in open_study(given.search).get_trials() if trial.state == TrialState.COMPLETE]
    if len(trials) < _FEWEST_TRIALS:
        raise ValueError(f"{given.search}: {len(trials)} trials ran to the end, expected {_FEWEST_TRIALS} or more")
    rungs = [rungs_of(trial) for trial in trials]
    first, last = [levels[min(levels)] for levels in rungs], [levels[max(levels)] for levels in rungs]
    names = [name for name in MEASURES if all(name in at for at in [*first, *last])]
    print(f"{len(trials)} trials of {max(rungs[0]):,} samples, first rung {min(rungs[0]):,}")
    print(f"{'at the first rung':<20}{'at the end':<20}{'rank correlation':>24}")
    found = []
    for early, late in product(names, names):
        figures = _correlation([at[early] for at in first], [at[late] for at in last])
        found.append({"first": early, "last": late, **figures})
        low, high = figures["interval"]
        print(f"{early:<20}{late:<20}{figures['spearman']:>12.2f} [{low:.2f}, {high:.2f}]")
    by_rung = []
    for rung, name in product(range(min(map(len, rungs))), names):
        of_rung = [levels[sorted(levels)[rung]] for levels in rungs]
        figures = _correlation([at[name] for at in of_rung], [at[name] for at in last])
        by_rung.append({"samples": sorted(rungs[0])[rung], "measure": name, **figures})
        print(f"{name} at {by_rung[-1]['samples']:,} samples and at the end: {figures['spearman']:.2f}")
    at_the_end = []
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            figures = _correlation([at[one] for at in last], [at[other] for at in last])
            at_the_end.append({"one": one, "other": other, **figures})
            print(f"at the end, {one} and {other}: {figures['spearman']:.2f}")
    rows = [
        {"role": role_of(trial), "parameters": parameters_of(trial), "rungs": levels}
        for trial, levels in zip(trials, rungs, strict=True)
    ]
    environment = json.loads(Path(given.search, "environment.json").read_text())
    write_record(
        given.out,
        {
            "data": environment["data"],
            "first_to_last": found,
            "by_rung": by_rung,
            "last": at_the_end,
            "trials": rows,
        },
    )
    return 0


def _correlation(one: Sequence[float], other: Sequence[float]) -> Figures:
    found = rank_correlation(one, other)
    return {"spearman": found.mean, "interval": [found.low, found.high]}


if __name__ == "__main__":
    sys.exit(main())
