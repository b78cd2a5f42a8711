"""Workers, the controller and the driver die or hang in the middle of a run, which ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.faulty_runs import ACCOUNT, CHECKPOINT_EVERY, FLAGS, NUM_STEPS, FaultyRun

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

RUN = [*FLAGS, "--train.collective-timeout-s", "10"]


def test_a_run_whose_processes_die_and_hang_learns_what_an_undisturbed_one_learns(
    fault_folder: Path, undisturbed: FaultyRun
) -> None:
    run = FaultyRun(fault_folder, "struck", RUN)
    try:
        run.strike("kill -9 of worker 0", 13)
        assert run.restarts()[-1] == {"worker 0": "its process died"}
        run.strike("kill -9 of the controller", 24)
        assert run.restarts()[-1] == {"controller": "its process died"}
        run.strike("SIGSTOP of worker 1", 36)
        (told,) = run.restarts()[-1].items()
        assert told[0] == "worker 1" and "it hangs" in told[1]
        run.strike("kill -9 of the driver", 45)
        run.strike("kill -9 of the driver and all below", 56)
        output = run.finish()
        assert output.count(": its process died: workers start again") == 2
        assert output.count("it hangs, or its machine does: workers start again") == 1
        assert len(run.blows) == 5 and len(run.restarts()) >= 3
        # What was being written when a fault struck is one more interval at most.
        assert all(0 <= blow.steps_redone <= 2 * CHECKPOINT_EVERY for blow in run.blows), run.blows
        ACCOUNT.settle(run, undisturbed)
        assert run.lines() == undisturbed.lines()
        assert [line["step"] for line in run.lines()] == list(range(1, NUM_STEPS + 1))
    finally:
        run.end()
