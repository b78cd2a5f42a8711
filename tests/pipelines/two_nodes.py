"""A cluster of two nodes on one machine, and an elastic run that meets what a spot market does; started by its test.

Runs in network, process and mount namespaces of its own, so that no other Ray of the machine is met or disturbed.
Prints one JSON object: what happened, for the test to judge.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.pipelines.faulty_runs import CHECKPOINT_EVERY, TRAIN_WORKER, FaultyRun, flags_of

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
NODE = {"num_cpus": 2, "object_store_memory": 200 << 20}
DEADLINE_S = 20
# Far more steps than nodes need to come and go: the run is told to stop once they have.
RUN = flags_of("generated:400", 3_000)


def num_train_workers() -> int:
    """Training workers on both nodes; this process sees no others."""
    return sum(
        (process.info["cmdline"] or [""])[0].startswith(TRAIN_WORKER) for process in psutil.process_iter(["cmdline"])
    )


class Market:
    """The cluster, the run on it, and what was seen of them."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        elastic = ["--train.resize-every-s", "2", "--train.report-every-s", "1", "--address", self.cluster.address]
        # Run folder and set lie on the disk that all nodes here share; the cluster has one node when the run starts.
        self.run = FaultyRun(folder, "elastic", [*RUN, *elastic], workers="1-2")
        self.seen: dict[str, Any] = {"num_workers": [], "redone_after_loss": []}

    def wait_for_workers(self, num_workers: int, past: int) -> None:
        """Until so many train past a step."""
        self.run.wait_for(lambda: num_train_workers() == num_workers and self.run.step() > past)
        self.seen["num_workers"].append(num_workers)

    def grow(self) -> Any:
        """Another node, once it is taken up."""
        node = self.cluster.add_node(**NODE)
        self.wait_for_workers(2, self.run.step() + 3)
        return node

    def lose(self) -> None:
        """A node comes, and is lost without a word."""
        node = self.grow()
        redone, last = self.run.num_redone(), self.run.step()
        self.cluster.remove_node(node, allow_graceful=False)
        self.wait_for_workers(1, last)
        self.seen["redone_after_loss"].append(self.run.num_redone() - redone)

    def take_away(self) -> None:
        """A node comes, and goes some time after a spot notice: what is saved before it goes is not redone."""
        from mlim_ray.training.checkpoint import CheckpointStore

        node = self.grow()
        store = CheckpointStore(str(self.run.run / "checkpoints"))
        drain = ["drain-node", "--address", self.cluster.address, "--node-id", node.node_id]
        drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        told_at, told = time.time(), self.run.step()
        command = [str(Path(sys.executable).parent / "ray"), *drain]
        subprocess.run([*command, "--deadline-remaining-seconds", str(DEADLINE_S)], check=True, capture_output=True)
        self.run.wait_for(lambda: any(step > told and step % CHECKPOINT_EVERY for step in store.steps()))
        self.seen["saved_after_s"] = time.time() - told_at
        redone = self.run.num_redone()
        self.run.wait_for(lambda: time.time() > told_at + DEADLINE_S)
        self.cluster.remove_node(node, allow_graceful=False)
        self.wait_for_workers(1, self.run.step())
        self.seen["redone_after_notice"] = self.run.num_redone() - redone

    def stop(self) -> None:
        """Tell the run to stop."""
        self.run.process.send_signal(signal.SIGTERM)
        self.seen["said"] = self.run.refused(75)
        self.seen["lines"] = self.run.lines()

    def end(self) -> None:
        self.run.end()
        self.cluster.shutdown()


def main(folder: Path, happenings: list[str]) -> dict[str, Any]:
    os.environ.update(ENVIRONMENT)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in ("/dev/shm", "/tmp/ray"):
        Path(place).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    market = Market(folder)
    try:
        market.wait_for_workers(1, 5)
        for happening in happenings:
            {"lose": market.lose, "take away": market.take_away}[happening]()
        market.stop()
    finally:
        market.end()
    return market.seen


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
