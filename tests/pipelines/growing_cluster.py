"""A cluster without any worker whose autoscaler starts some on this machine, and what is asked of it; started by its
test.

Runs in network, process and mount namespaces of its own, so that no other Ray of the machine is met or disturbed.
Prints one JSON object: what happened, for the test to judge.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mlim_ray.pipelines.doctor.cluster_file import COMMANDS

GPU_TYPE = {"resources": {"CPU": 4, "GPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2}
HEAD = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
HEAD_ID = "f" * 56
PORT = 6379
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_FAKE_CLUSTER": "1",
    # As `ray up` has it.
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def write_config(path: Path) -> None:
    """What `ray up` would leave on the head."""
    # Ray's own, by its class: what its name stands for lacks a file in Ray's package.
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "head_node_id": HEAD_ID,
        "gcs_address": f"127.0.0.1:{PORT}",
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    config = {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "provider": provider,
        "auth": {},
        "available_node_types": {"ray.head.default": HEAD, "gpu": GPU_TYPE},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
    } | {key: [] for key in [*COMMANDS, "cluster_synced_files"]}
    path.write_text(yaml.safe_dump(config))


def main(folder: Path) -> dict[str, Any]:
    os.environ.update(ENVIRONMENT)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in ("/dev/shm", "/tmp/ray"):
        Path(place).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    config = folder / "growing.yaml"
    write_config(config)
    program = str(Path(sys.executable).parent / "ray")
    start = [program, "start", "--head", "--num-cpus", "0", "--num-gpus", "0", "--include-dashboard", "false"]
    start += ["--node-ip-address", "127.0.0.1", "--port", str(PORT), "--object-store-memory", str(200 << 20)]
    subprocess.run([*start, f"--autoscaling-config={config}"], check=True, capture_output=True)
    return ask(f"127.0.0.1:{PORT}")


def ask(address: str) -> dict[str, Any]:
    """What is seen by somebody who joins the cluster."""
    import ray

    from mlim_ray.pipelines.autoscaler import wait_for_nodes
    from mlim_ray.pipelines.cluster import connect
    from mlim_ray.pipelines.resources import plan_run, plan_search, wait_for_resources

    def num_nodes() -> int:
        return sum(node["Alive"] for node in ray.nodes())

    seen: dict[str, Any] = {}
    with connect(address, dashboard=False) as cluster:
        seen["workers_at_first"] = num_nodes() - 1
        seen["size"] = cluster.size
        plan = plan_search(cluster, max_concurrent=0, streams=True)
        seen["lines"] = plan.lines(cluster)
        seen["threads"] = plan.threads_per_worker
        try:
            plan_run(cluster, 5, streams=False)
        except ValueError as error:
            seen["too_many"] = str(error)
        wait_for_resources(plan, streams=True)
        seen["gpus_after_waiting"] = ray.cluster_resources()["GPU"]
        seen["worked_on_a_gpu"] = ray.get(ray.remote(num_gpus=1)(lambda: True).remote())
        wait_until(lambda: num_nodes() == 1, 120)
        seen["workers_when_idle"] = num_nodes() - 1
        begun = time.monotonic()
        try:
            assert cluster.growth is not None
            wait_for_nodes([{"GPU": 2.0, "CPU": 0.0}, {"CPU": 5.0}], cluster.growth)
        except ValueError as error:
            seen["never_fits"] = str(error)
        seen["refused_after_s"] = time.monotonic() - begun
        seen["reservations"] = [
            group["state"] for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"
        ]
    return seen


def wait_until(is_so: Callable[[], bool], budget_s: float) -> None:
    """Return when it `is_so`, or after the budget: the test judges what is seen then."""
    tick = threading.Event()
    for _ in range(int(budget_s * 2)):
        if is_so():
            return
        tick.wait(0.5)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
