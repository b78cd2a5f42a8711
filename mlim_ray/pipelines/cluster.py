"""Start a Ray of our own or join one, quietly, and know what it has (contract C9)."""

import contextlib
import functools
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

# Ray reads these when it is imported, and hands them to its processes.
_ENVIRONMENT = {
    # A thread that waits for others would spin: on cores that do other work too, a step took seventeen times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's own state, which grows with every trial, is written at the beginning and the end: nothing reads it.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
import ray._private.parameter  # noqa: E402
import ray._private.worker  # noqa: E402
import ray.data  # noqa: E402
import ray.job_config  # noqa: E402
from ray._private.authentication.authentication_utils import is_token_auth_enabled  # noqa: E402

from mlim_ray.pipelines.autoscaler import read_growth  # noqa: E402
from mlim_ray.pipelines.growth import Growth  # noqa: E402

logger = logging.getLogger(__name__)

LOCAL = "local"
_STORE_SHARE_OF_MEMORY = 0.3
_STORE_SHARE_OF_SHM = 0.8
_MAX_STORE_BYTES = 16 << 30


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to; one with an autoscaler counts with all nodes that this may start."""

    num_cpus: float
    num_gpus: float
    num_nodes: int
    object_store_bytes: float
    dashboard_url: str | None
    asks_for_token: bool = False
    """whether Ray's token authentication guards the dashboard"""
    growth: Growth | None = None
    """what its autoscaler may start"""

    @property
    def has(self) -> str:
        """The verb before what there is at most."""
        return "has" if self.growth is None else "can grow to"

    @property
    def size(self) -> str:
        """What there is at most, in words."""
        size = f"{self.num_cpus:g} CPU, {self.num_gpus:g} GPU on {self.num_nodes} node(s)"
        return size if self.growth is None else f"up to {size} ({self.growth})"

    @property
    def cpus_a_node(self) -> float:
        """CPUs of a node, for a task that has it to itself."""
        return self.num_cpus / self.num_nodes if self.growth is None else self.growth.cpus_a_node

    @property
    def dashboard_line(self) -> str:
        """What to tell a person about the dashboard: where it is, and how to log in."""
        line = f"Ray dashboard: {self.dashboard_url}"
        if self.asks_for_token:
            line += f" (it asks for the token that `{_ray_program()} get-auth-token` prints)"
        return line


def local_num_cpus() -> int:
    """CPUs that a Ray of our own is told it has: the machine's, and at least 2, one worker and one for Ray Data."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def this_machine() -> Cluster:
    """What a Ray of our own would have here, without starting one."""
    # Ray Data's tasks load this module, and torch would take a second of each process.
    import torch

    return Cluster(float(local_num_cpus()), float(torch.cuda.device_count()), 1, float(_store_bytes()), None)


@contextlib.contextmanager
def connect(address: str, *, dashboard: bool = True, job: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Connect to the Ray at `address`, or to one of our own for "local", until the block ends.

    Args:
        address: of the head node, or `local`.
        dashboard: start it with a Ray of our own.
        job: what the dashboard says of this job, by name; `job_name` is what it is called.

    Raises:
        ValueError: there is no Ray at `address`.
    """
    quiet()
    job_config = ray.job_config.JobConfig(metadata=dict(job or {}))
    if address == LOCAL:
        with _any_agent_port():
            context = ray.init(
                address=LOCAL,
                num_cpus=local_num_cpus(),
                include_dashboard=dashboard,
                object_store_memory=_store_bytes(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                job_config=job_config,
            )
    else:
        try:
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, job_config=job_config)
        except ConnectionError as error:
            raise ValueError(
                f"--address {address}: no Ray answers there; check the address, or leave it out for a local Ray"
            ) from error
    try:
        resources = ray.cluster_resources()
        cluster = Cluster(
            num_cpus=resources.get("CPU", 0.0),
            num_gpus=resources.get("GPU", 0.0),
            num_nodes=sum(1 for node in ray.nodes() if node["Alive"]),
            object_store_bytes=resources.get("object_store_memory", 0.0),
            dashboard_url=f"http://{context.dashboard_url}" if context.dashboard_url else None,
            asks_for_token=is_token_auth_enabled(),
        )
        growth = None if address == LOCAL else read_growth()
        yield cluster if growth is None else grown(cluster, growth)
    finally:
        ray.shutdown()


def grown(cluster: Cluster, growth: Growth) -> Cluster:
    """A cluster once its autoscaler has started all that it may."""
    return replace(
        cluster,
        num_cpus=max(cluster.num_cpus, growth.num_cpus),
        num_gpus=max(cluster.num_gpus, growth.num_gpus),
        num_nodes=max(cluster.num_nodes, growth.num_nodes),
        growth=growth,
    )


@contextlib.contextmanager
def _any_agent_port() -> Iterator[None]:
    """Let a Ray that is started here take any free port for its dashboard's agent.

    `ray.init` has no argument for it and takes a fixed port; where another Ray of this machine has that one, the
    dashboard says nothing and shows no logs.
    """
    parameters = ray._private.parameter.RayParams
    ray._private.parameter.RayParams = functools.partial(parameters, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        ray._private.parameter.RayParams = parameters


def quiet() -> None:
    """Keep Ray's own lines off the screen; they stay in its log files."""
    # Ray prints what its nodes tell of dead processes, even where it is told to print nothing of them.
    ray._private.worker.print_to_stdstream = _to_log
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_rich_progress_bars = False


def _to_log(data: dict[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        logger.info("%s: %s", data["pid"], line)


def _ray_program() -> str:
    """Ray's program as it can be typed here: it lies beside this Python where no PATH leads to it."""
    beside = os.path.join(os.path.dirname(sys.executable), "ray")
    if shutil.which("ray") is not None or not os.path.exists(beside):
        return "ray"
    return os.path.relpath(beside) if beside.startswith(os.getcwd() + os.sep) else beside


def _store_bytes() -> int:
    """Room for the object store: a share of memory, never more than shared memory holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = int(_STORE_SHARE_OF_MEMORY * memory)
    if os.path.isdir("/dev/shm"):
        room = min(room, int(_STORE_SHARE_OF_SHM * shutil.disk_usage("/dev/shm").free))
    return max(100 << 20, min(room, _MAX_STORE_BYTES))
