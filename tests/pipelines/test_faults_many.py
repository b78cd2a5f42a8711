"""Many kills over one run on real records, at random moments: not one line of its metrics differs.

How many: the environment variable MLIM_RAY_KILLS. The seed of the moments is printed; MLIM_RAY_KILLS_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.pipelines.faulty_runs import ACCOUNT, CHECKPOINT_EVERY, FAULTS, FaultyRun, flags_of

pytestmark = [pytest.mark.cluster, pytest.mark.torture, pytest.mark.timeout(4 * 3_600)]

NUM_KILLS = int(os.environ.get("MLIM_RAY_KILLS", "50"))
MOST_STEPS_BETWEEN = 14
NUM_STEPS = NUM_KILLS * (MOST_STEPS_BETWEEN + 1) + 20


def test_a_run_on_real_records_outlives_many_kills(shared_data: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("MLIM_RAY_KILLS_SEED", time.time_ns() % 1_000_000))
    print(f"MLIM_RAY_KILLS_SEED={seed}")
    random.seed(seed)
    flags = [*flags_of(str(shared_data / "fashion"), NUM_STEPS), "--train.collective-timeout-s", "15"]
    undisturbed = FaultyRun(tmp_path, "undisturbed", flags)
    struck = None
    try:
        undisturbed.finish()
        struck = FaultyRun(tmp_path, "struck", flags)
        faults = [fault for fault in sorted(FAULTS) for _ in range(-(-NUM_KILLS // len(FAULTS)))]
        random.shuffle(faults)
        for fault in faults[:NUM_KILLS]:
            struck.strike(fault, struck.step() + random.randint(1, MOST_STEPS_BETWEEN))
        struck.finish()
        ACCOUNT.settle(struck, undisturbed)
        assert len(struck.blows) == NUM_KILLS
        assert all(0 <= blow.steps_redone <= 2 * CHECKPOINT_EVERY for blow in struck.blows), struck.blows
        assert struck.lines() == undisturbed.lines()
    finally:
        undisturbed.end()
        if struck is not None:
            struck.end()
