"""Many kills over one run on real records, at random moments: not one line of its metrics differs.

How many: the environment variable MLIM_RAY_KILLS. The seed of the moments is printed; MLIM_RAY_KILLS_SEED repeats it.
MLIM_RAY_KILLS_RECORD names a JSON file for the account.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.record import machine
from mlim_ray.training.metrics import read_metrics
from tests.pipelines.faulty_runs import ACCOUNT, CHECKPOINT_EVERY, FAULTS, FaultyRun, flags_of

pytestmark = [pytest.mark.cluster, pytest.mark.torture, pytest.mark.timeout(4 * 3_600)]

NUM_KILLS = int(os.environ.get("MLIM_RAY_KILLS", "50"))
MOST_STEPS_BETWEEN = 14
NUM_STEPS = NUM_KILLS * (MOST_STEPS_BETWEEN + 1) + 20
BUDGET_S = 3_600.0


def checkpoint_wait_ratio(run: FaultyRun) -> float:
    """The share of a run's time, from its first line on, that its steps waited for checkpoints."""
    lines = read_metrics(str(run.run))
    waited_s = sum(
        line["time/checkpoint_wait_ratio"] * (line["time/elapsed_s"] - before["time/elapsed_s"])
        for before, line in itertools.pairwise(lines)
    )
    return waited_s / (lines[-1]["time/elapsed_s"] - lines[0]["time/elapsed_s"])


def test_a_run_on_real_records_outlives_many_kills(shared_data: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("MLIM_RAY_KILLS_SEED", time.time_ns() % 1_000_000))
    print(f"MLIM_RAY_KILLS_SEED={seed}")
    random.seed(seed)
    flags = [*flags_of(str(shared_data / "fashion"), NUM_STEPS), "--train.collective-timeout-s", "30"]
    facts = machine()
    undisturbed = FaultyRun(tmp_path, "undisturbed", flags, budget_s=BUDGET_S)
    struck = None
    try:
        undisturbed.finish()
        struck = FaultyRun(tmp_path, "struck", flags, budget_s=BUDGET_S)
        faults = [fault for fault in sorted(FAULTS) for _ in range(-(-NUM_KILLS // len(FAULTS)))]
        random.shuffle(faults)
        for fault in faults[:NUM_KILLS]:
            struck.strike(fault, struck.step() + random.randint(1, MOST_STEPS_BETWEEN))
        struck.finish()
        ACCOUNT.settle(struck, undisturbed)
        if "MLIM_RAY_KILLS_RECORD" in os.environ:
            differing = sum(a != b for a, b in zip(struck.lines(), undisturbed.lines(), strict=True))
            record = {
                "command": 'make torture ARGS="tests/pipelines/test_faults_many.py"',
                "written": time.strftime("%F %T"),
                "machine": facts,
                "seed": seed,
                "flags": flags[2:],
                "num_steps": NUM_STEPS,
                "differing_lines": differing,
                "checkpoint_wait_ratio": round(checkpoint_wait_ratio(undisturbed), 4),
                "blows": [asdict(blow) for blow in struck.blows],
                "table": ACCOUNT.table(),
            }
            Path(os.environ["MLIM_RAY_KILLS_RECORD"]).write_text(json.dumps(record, indent=1) + "\n")
        assert len(struck.blows) == NUM_KILLS
        assert all(0 <= blow.steps_redone <= 2 * CHECKPOINT_EVERY for blow in struck.blows), struck.blows
        assert struck.lines() == undisturbed.lines()
    finally:
        undisturbed.end()
        if struck is not None:
            struck.end()
