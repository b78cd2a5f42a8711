"""A cluster whose workers come and go with the work: Ray's own autoscaler, with nodes on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.pipelines.test_faults_nodes import OWN_NAMESPACES
from tests.pipelines.test_pretrain import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What somebody saw who joined it while it had no worker."""
    if subprocess.run([*OWN_NAMESPACES, "true"], capture_output=True).returncode != 0:
        pytest.skip("an autoscaler's nodes need a network of their own, and this user may not make one (unshare)")
    folder = tmp_path_factory.mktemp("grow")
    done = subprocess.run(
        [
            *OWN_NAMESPACES,
            sys.executable,
            "-m",
            "tests.pipelines.growing_cluster",
            str(folder),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_arithmetic_is_that_of_all_nodes_that_there_can_be(seen: dict[str, Any]) -> None:
    assert seen["workers_at_first"] == 0
    assert seen["size"] == "up to 8 CPU, 4 GPU on 3 node(s) (2 gpu)"
    assert seen["lines"][0].startswith("workers: 4 trials at a time x 1 x (0 CPU, 1 GPU, 2 threads)")
    # Of a node, not of the cluster.
    assert seen["threads"] == 2


def test_a_search_brings_a_node_up_and_an_idle_one_goes(seen: dict[str, Any]) -> None:
    assert seen["gpus_after_waiting"] == 2.0 and seen["worked_on_a_gpu"]
    assert seen["workers_when_idle"] == 0


def test_what_never_fits_is_refused_with_the_arithmetic(seen: dict[str, Any]) -> None:
    assert seen["too_many"].startswith("5 workers x 1 GPU = 5 GPU, and the cluster can grow to 4; use --workers 4")
    # Its sum would fit, and no node has five CPUs.
    assert seen["never_fits"].startswith(
        "1 x (2 GPU) and 1 x (5 CPU) do not fit: the cluster can grow to 8 CPU, 4 GPU (2 gpu)"
    )
    # Nothing is asked for any longer.
    assert seen["reservations"] == []
