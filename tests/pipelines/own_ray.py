"""A small Ray in a process of its own, which drivers join and leave, and what is in it: for tests of what they leave
behind. With or without a dashboard."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
STORE_BYTES = 300 << 20
NUM_CPUS = 2
OF_RAY_DATA = ("_AutoscalingCoordinatorActor", "_StatsActor")
"""of which Ray Data keeps one each on a cluster that it once worked on, for as long as the cluster lives"""


class OwnRay:
    """A Ray of two CPUs, which drivers join at `address` with `environment`; as a context manager it ends with all that
    is below it."""

    def __init__(self, *, dashboard: bool) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self.environment = environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(int(dashboard))],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._nodes: list[subprocess.Popen[bytes]] = []
        self.address = str(self._answer())

    def count(self) -> dict[str, Any]:
        """Placement groups, living actors but Ray Data's own two, bytes in the object store, and free CPUs."""
        counted: dict[str, Any] = self._ask("count")
        return counted

    def hold_cpu(self) -> None:
        """Take one of the first node's CPUs away from everybody else."""
        self._ask("hold")

    def free_cpu(self) -> None:
        """Give it back."""
        self._ask("free")

    def add_node(self) -> subprocess.Popen[bytes]:
        """A second node of one CPU, on this machine; `end_node` takes it away."""
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--address", self.address]
        node = subprocess.Popen(
            [*command, "--num-cpus", "1", "--object-store-memory", str(STORE_BYTES)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._nodes.append(node)
        return node

    def end_node(self, node: subprocess.Popen[bytes]) -> None:
        """Kill a node and all that runs there."""
        below = psutil.Process(node.pid).children(recursive=True)
        for process in below:
            process.kill()
        node.kill()
        node.wait()
        self._nodes.remove(node)

    def wait_until(self, is_so: Callable[[dict[str, Any]], bool], budget_s: float = 60.0) -> dict[str, Any]:
        """The count once it `is_so`, or the last one: Ray frees what nobody holds a little later."""
        tick = threading.Event()
        counted = self.count()
        for _ in range(int(budget_s * 2)):
            if is_so(counted):
                break
            tick.wait(0.5)
            counted = self.count()
        return counted

    def processes(self, title: str | tuple[str, ...]) -> list[psutil.Process]:
        """Processes of this Ray by the start of their title, or by one of several."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if (process.cmdline() or [""])[0].startswith(title):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def __enter__(self) -> OwnRay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in list(self._nodes):
            self.end_node(node)
        below = psutil.Process(self._process.pid).children(recursive=True)
        try:
            self._process.communicate("", timeout=60)
        finally:
            for process in below:
                if process.is_running():
                    process.kill()
            self._process.kill()

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class _Holder:
    def is_there(self) -> bool:
        return True


def main(dashboard: bool) -> None:
    """Start a Ray and answer with its address, then each line that comes in."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    from ray._private.state import state
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from mlim_ray.pipelines.cluster import quiet

    # Answers alone go to standard output.
    quiet()
    ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        include_dashboard=dashboard,
        object_store_memory=STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
    )
    address = ray.get_runtime_context().gcs_address
    print(json.dumps(address), flush=True)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    holder = ray.remote(num_cpus=1, scheduling_strategy=here)(_Holder)
    held: list[Any] = []
    for line in sys.stdin:
        if line == "hold\n":
            held.append(holder.remote())
            ray.get(held[0].is_there.remote())
        elif line == "free\n":
            held.clear()
        groups = ray.util.placement_group_table().values()
        actors = [actor["ActorClassName"] for actor in state.actor_table(None, None, "ALIVE").values()]
        for name in OF_RAY_DATA:
            if name in actors:
                actors.remove(name)
        store = get_memory_info_reply(get_state_from_address(address)).store_stats
        counted = {
            "placement_groups": sum(group["state"] != "REMOVED" for group in groups),
            "actors": sorted(actors),
            "object_store_bytes": store.object_store_bytes_used,
            "free_cpus": ray.available_resources().get("CPU", 0.0),
        }
        print(json.dumps(counted), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(bool(int(sys.argv[1])))
