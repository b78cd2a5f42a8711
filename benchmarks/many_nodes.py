"""What do more nodes cost Ray's head, and what do they leave of the rate of tasks and of the feed?

Command:  python -m benchmarks.many_nodes --out many_nodes.json
          As root on Linux, with iproute2 and util-linux; nothing outside its own namespaces is met.
Cost:     five minutes on two idle cores, and 8 GiB of memory with 16 nodes.
Ways:     clusters of 2, 4, 8 and 16 tiny nodes on one machine, each in network, process, mount and IPC namespaces of
          its own, each node a raylet with its agents, one CPU and a small object store. All share the machine's cores,
          so the rate of tasks tells what the cluster costs, not what it would reach.
Figures:  processor time and memory of the head's GCS and of a node's raylet and agents, idle and with tasks; empty
          tasks a second, spread over all nodes, and batches a second of a small feed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.record import DEFAULT_WORK, ROOT, Figures, machine, write_record
from mlim_ray.command_line.errors import plain_errors

_MODULE = "benchmarks.many_nodes"
_NODES = "2,4,8,16"
_STORE_BYTES = 80 << 20
_BATCH_SIZE = 64
_MIB = 2**20
# A node that is waited for shares two cores with all others.
_PATIENCE = {"RAY_worker_register_timeout_seconds": "300", "RAY_health_check_timeout_ms": "60000"}
# Ray waits 30 s for a node, whatever it is told; on a busy machine that may be too short.
_TRIES, _NOT_UP = 4, "timed out during startup"
_INSIDE = """set -e
ip link set lo up
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs tmpfs /dev/shm
exec "$@"
"""
_KINDS = {"gcs_server": "gcs", "raylet": "raylet", "dashboardagent": "agents", "runtimeenvagent": "agents"}


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one cluster of it, from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", default=_NODES, help=f"beside the head, of each cluster ({_NODES})")
    parser.add_argument("--tasks", type=int, default=2_000, help="empty tasks (2,000)")
    parser.add_argument("--steps", type=int, default=400, help=f"batches of {_BATCH_SIZE} that are fed (400)")
    parser.add_argument("--idle-s", type=float, default=20.0, help="seconds that nothing is done (20)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the set that is fed")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_measure(given)))
        return 0
    if given.smoke:
        given.nodes, given.tasks, given.steps, given.idle_s = "1,2", 50, 20, 1.0
    if os.geteuid() != 0:
        raise ValueError("clusters of tiny nodes need namespaces of their own; expected root, run it with sudo")
    started_on = machine()
    print("nodes | GCS: MiB, cores idle, ms a task | raylet and agents: MiB, cores idle | tasks/s | batches/s")
    clusters = []
    for count in map(int, given.nodes.split(",")):
        found = _in_namespaces(given, count)
        clusters.append(found)
        idle, tasks = found["idle"], found["tasks"]
        print(
            f"{count:>5} | {idle['gcs']['rss_mib']:.0f}, {idle['gcs']['cores']:.3f}, {tasks['gcs']['ms']:.2f} | "
            f"{idle['node_mib']:.0f}, {idle['node_cores']:.3f} | {tasks['per_s']:.0f} | {found['feed']['per_s']:.1f}",
            flush=True,
        )
        write_record(given.out, {"machine": started_on, "tasks": given.tasks, "clusters": clusters})
    return 0


def _in_namespaces(given: argparse.Namespace, count: int) -> Figures:
    """One cluster's figures; all its processes end with the first of their namespace."""
    flags = [part for name in ("tasks", "steps", "idle_s", "work") for part in _flag(name, vars(given)[name])]
    cell = [sys.executable, "-m", _MODULE, "--cell", str(count), *flags]
    own = ["--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"]
    environment = {**os.environ, **_PATIENCE, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    command = ["unshare", *own, "bash", "-c", _INSIDE, "bash", *cell]
    for _ in range(_TRIES):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if _NOT_UP not in done.stderr:
            break
    if done.returncode != 0:
        raise RuntimeError(f"a cluster of {count} nodes ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _flag(name: str, value: object) -> tuple[str, str]:
    return f"--{name.replace('_', '-')}", str(value)


def _measure(given: argparse.Namespace) -> Figures:
    """A cluster of so many nodes beside its head: up, idle, with empty tasks, with a feed."""
    import ray
    from ray.cluster_utils import Cluster

    from mlim_ray.pipelines.cluster import quiet

    quiet()
    started = time.perf_counter()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False},
    )
    for _ in range(given.cell):
        cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    up_s = time.perf_counter() - started
    _run_tasks(2 * given.cell)
    before, began = _used(), time.perf_counter()
    time.sleep(given.idle_s)
    idle = _since(before, time.perf_counter() - began)
    nodes = given.cell + 1
    kinds = ("raylet", "agents")
    figures = {
        "nodes": given.cell,
        "up_s": up_s,
        "idle": {
            **idle,
            "node_mib": sum(idle[kind]["rss_mib"] for kind in kinds) / nodes,
            "node_cores": sum(idle[kind]["cores"] for kind in kinds) / nodes,
        },
        "tasks": _timed(given.tasks, lambda: _run_tasks(given.tasks)),
        "feed": _timed(given.steps, lambda: _run_feed(given)),
        "alive_at_the_end": sum(node["Alive"] for node in ray.nodes()),
    }
    ray.shutdown()
    return figures


def _timed(number: int, work: Callable[[], None]) -> Figures:
    """Rate of `number` pieces of work, and processor time for each of them."""
    before, began = _used(), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    used = _since(before, seconds)
    for each in used.values():
        each["ms"] = 1e3 * each["cores"] * seconds / number
    return {"per_s": number / seconds, **used}


def _run_tasks(number: int) -> None:
    import ray

    @ray.remote(num_cpus=0.5, scheduling_strategy="SPREAD")
    def nothing() -> None:
        pass

    ray.get([nothing.remote() for _ in range(number)])


def _run_feed(given: argparse.Namespace) -> None:
    """A few hundred batches of a small set through Ray Data."""
    from benchmarks.feed_ways import Job, stream

    prepared = _prepared(given.work)
    for _ in stream(Job(prepared, given.work, _BATCH_SIZE, given.steps, 0, 0)):
        pass


def _prepared(work: str) -> str:
    """The set that is fed; made by the first cluster."""
    from mlim_ray.config.prepare import PrepareConfig
    from mlim_ray.data.sources import resolve_prepare_config
    from mlim_ray.pipelines.prepare import prepare

    out = Path(work) / "many-nodes-set"
    prepare("generated:4000", str(out), resolve_prepare_config(PrepareConfig(), 32))
    return str(out)


def _used() -> dict[int, tuple[str, float, float]]:
    """By process: its kind as of now, processor seconds and MiB. Here none runs that does not belong to the cluster."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError):
            name = process.cmdline()[0].rsplit("/", 1)[-1].lower()
            kind = next((kind for mark, kind in _KINDS.items() if mark in name), "workers and others")
            times = process.cpu_times()
            kind = "driver" if process.pid == os.getpid() else kind
            found[process.pid] = (kind, times.user + times.system, process.memory_info().rss / _MIB)
    return found


def _since(before: dict[int, tuple[str, float, float]], seconds: float) -> dict[str, Figures]:
    """By kind. A process that has become another kind since, as a worker that was starting, is what it is now."""
    kinds: dict[str, Figures] = {}
    for pid, (kind, cpu_s, rss_mib) in _used().items():
        figures = kinds.setdefault(kind, {"cores": 0.0, "rss_mib": 0.0})
        figures["cores"] += (cpu_s - before.get(pid, ("", 0.0, 0.0))[1]) / seconds
        figures["rss_mib"] += rss_mib
    return kinds


if __name__ == "__main__":
    sys.exit(main())
