"""The object store is away for 20 seconds in the middle of a run that keeps its folder there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import read_metrics
from tests.builders import timeless
from tests.object_store import ObjectStore
from tests.pipelines.faulty_runs import ACCOUNT, FLAGS, FaultyRun
from tests.pipelines.test_pretrain import start, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.torture, pytest.mark.timeout(1_800)]

AWAY_S = 20.0


def test_a_run_outlives_an_object_store_that_is_away(
    tmp_path: Path, undisturbed: FaultyRun, object_store: ObjectStore, bucket: str
) -> None:
    run = f"{bucket}/runs/away"
    process = start(tmp_path, *FLAGS, "--workers", "2", "--out", run)
    try:
        store = CheckpointStore(f"{run}/checkpoints")
        wait_until(process, lambda: bool(store.steps()))
        object_store.kill("object")
        before = process.poll()
        threading.Event().wait(AWAY_S)
        object_store.revive("object")
        assert before is None
        stdout, stderr = process.communicate(timeout=900)
        assert process.returncode == 0, stdout + stderr
    finally:
        process.kill()
    assert timeless(read_metrics(run)) == undisturbed.lines()
    ACCOUNT.add("the object store is away for 20 s", 0)
