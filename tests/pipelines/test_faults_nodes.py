"""Nodes come, are taken away with notice, and are lost: an elastic run learns what an undisturbed one learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import digests, figures
from tests.pipelines.faulty_runs import CHECKPOINT_EVERY, FaultyRun
from tests.pipelines.test_pretrain import ROOT
from tests.pipelines.two_nodes import DEADLINE_S, RUN

pytestmark = [pytest.mark.cluster, pytest.mark.torture, pytest.mark.timeout(1_800)]

OWN_NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--mount-proc"]


@pytest.fixture(scope="module")
def undisturbed(fault_folder: Path) -> Iterator[FaultyRun]:
    """The run that no node leaves, with one worker."""
    run = FaultyRun(fault_folder, "one-node", RUN, "1")
    try:
        run.finish()
        yield run
    finally:
        run.end()


def test_an_elastic_run_outlives_its_nodes(fault_folder: Path, undisturbed: FaultyRun) -> None:
    if subprocess.run([*OWN_NAMESPACES, "true"], capture_output=True).returncode != 0:
        pytest.skip("two Ray nodes need a network of their own, and this user may not make one (unshare)")
    done = subprocess.run(
        [*OWN_NAMESPACES, sys.executable, "-m", "tests.pipelines.two_nodes", str(fault_folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["num_workers"] == [1, 2, 1, 2, 1]
    assert seen["saved_after_s"] < DEADLINE_S and seen["redone_after_notice"] <= 5, seen
    assert 0 < seen["redone_after_loss"] <= 2 * CHECKPOINT_EVERY
    for line, expected in zip(seen["lines"], undisturbed.lines(), strict=True):
        ours, theirs = figures(line), figures(expected)
        # Two workers add up in another order than one; what is promised of is the losses.
        norms = ours.pop("gradient_norm"), theirs.pop("gradient_norm")
        assert ours == pytest.approx(theirs, rel=1e-5), line["step"]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert digests(line) == digests(expected)
