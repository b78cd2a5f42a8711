"""A cluster of two nodes on one machine, and an elastic run that meets what a spot market does; started by its test.

Runs in network, process and mount namespaces of its own, so that no other Ray of the machine is met or disturbed.
Prints one JSON object: what happened, for the test to judge.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.pipelines.faulty_runs import TRAIN_WORKER, FaultyRun, flags_of

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
DEADLINE_S = 20
# Long enough for two nodes to come and go.
RUN = flags_of("generated:400", 300)


def num_train_workers() -> int:
    """Training workers on both nodes; this process sees no others."""
    return sum(
        (process.info["cmdline"] or [""])[0].startswith(TRAIN_WORKER) for process in psutil.process_iter(["cmdline"])
    )


def main(folder: Path) -> dict[str, Any]:
    os.environ.update(ENVIRONMENT)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in ("/dev/shm", "/tmp/ray"):
        Path(place).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    from ray.cluster_utils import Cluster

    from mlim_ray.training.checkpoint import CheckpointStore

    node = {"num_cpus": 2, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    seen: dict[str, Any] = {"num_workers": []}
    elastic = ["--train.resize-every-s", "2", "--train.report-every-s", "1", "--address", cluster.address]
    # Run folder and set lie on the disk that all nodes here share; the cluster has one node when the run starts.
    run = FaultyRun(folder, "elastic", [*RUN, *elastic], workers="1-2")
    try:

        def wait_for_restart(num_workers: int, past: int) -> None:
            run.wait_for(lambda: num_train_workers() == num_workers and run.step() > past)
            seen["num_workers"].append(num_workers)

        wait_for_restart(1, 5)
        second = cluster.add_node(**node)
        wait_for_restart(2, run.step() + 3)

        # A spot notice: what is saved before the node goes is not redone.
        store = CheckpointStore(str(run.run / "checkpoints"))
        drain = ["drain-node", "--address", cluster.address, "--node-id", second.node_id]
        drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        told_at, told = time.time(), run.step()
        command = [str(Path(sys.executable).parent / "ray"), *drain]
        subprocess.run([*command, "--deadline-remaining-seconds", str(DEADLINE_S)], check=True, capture_output=True)
        run.wait_for(lambda: any(step > told and step % 10 for step in store.steps()))
        seen["saved_after_s"] = time.time() - told_at
        redone = run.num_redone()
        run.wait_for(lambda: time.time() > told_at + DEADLINE_S)
        cluster.remove_node(second, allow_graceful=False)
        last = run.step()
        wait_for_restart(1, last)
        seen["redone_after_notice"] = run.num_redone() - redone

        # Another node comes, and is lost without a word.
        third = cluster.add_node(**node)
        wait_for_restart(2, run.step() + 3)
        redone, last = run.num_redone(), run.step()
        cluster.remove_node(third, allow_graceful=False)
        wait_for_restart(1, last)
        seen["redone_after_loss"] = run.num_redone() - redone
        run.finish()
        seen |= {"lines": run.lines(), "restarts": run.restarts(), "output": run.output}
    finally:
        run.end()
        cluster.shutdown()
    return seen


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
