"""The autoscaler of the Ray that is joined: what it may start, and waiting for what it starts."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import ray
import yaml
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import AutoscalingState, GetClusterStatusReply
from ray.experimental.internal_kv import internal_kv_get_gcs_client
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlim_ray.pipelines.growth import Growth
from mlim_ray.reporting.progress import Stage, say

_HEAD = "node:__internal_head__"
_CONFIG, _ADDRESS = "--autoscaling-config=", "--gcs-address="
_TYPES = "MLIM_RAY_NODE_TYPES"
"""of the head's environment, where the autoscaler has no file: on Kubernetes, which it asks itself"""
_HOSTS = "local"
"""Ray's provider for machines that are there: all of them are started, and what they have is known only then"""
_ANSWER_S = 60.0
_ASK_EVERY_S = 1.0
_REFUSED_FOR_S = 30.0
"""Ray's autoscaler looks every five seconds, and for some of them what it ends or has just started is in the way"""
_IDLE_FOR_S = 60.0
_WITHIN_S = 1800.0
"""a machine, its image of many GB, and the project's packages; again where the first one is not to be had"""


def read_growth() -> Growth | None:
    """What the autoscaler may start; None where there is none, or where it starts all there is by itself."""
    # Asked of the cluster, as this process may have been started otherwise.
    if not is_autoscaler_v2(fetch_from_server=True):
        return None
    head = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])
    context = ray.get_runtime_context()
    port = context.gcs_address.rpartition(":")[2]
    if head == context.get_node_id():
        return growth_here(port)
    strategy = NodeAffinitySchedulingStrategy(head, soft=False)
    task = ray.remote(num_cpus=0, scheduling_strategy=strategy)(growth_here)
    growth: Growth | None = ray.get(task.remote(port), timeout=_ANSWER_S)
    return growth


def growth_here(port: str) -> Growth | None:
    """The same, from the file that the autoscaler was started with; runs on the head, where both are.

    Args:
        port: of the Ray that it belongs to.
    """
    if _TYPES in os.environ:
        return Growth.of(yaml.safe_load(os.environ[_TYPES]))
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        flags = {flag: text[len(flag) :] for text in arguments for flag in (_CONFIG, _ADDRESS) if text.startswith(flag)}
        if _CONFIG in flags and flags.get(_ADDRESS, "").endswith(f":{port}"):
            config = yaml.safe_load(Path(flags[_CONFIG]).expanduser().read_text(encoding="utf-8"))
            return None if config["provider"]["type"] == _HOSTS else Growth.of(config)
    return None


def wait_for_nodes(bundles: Sequence[Mapping[str, float]], growth: Growth) -> None:
    """Return once there is room for all `bundles` at a time, on nodes that the autoscaler starts for them.

    What asks for them is a reservation, which is given up in the end, and goes with this process if that is killed:
    the next one to ask has the room, and nodes that nobody uses go. `request_resources` would not do, since Ray Data
    makes it anew every 20 seconds for itself, and what a killed process had asked for would stay.

    Args:
        bundles: resources that have to lie on one node each.
        growth: for the message.

    Raises:
        ValueError: they do not fit, the autoscaler starts nothing, or it takes too long, with the arithmetic.
    """
    asked = [{name: amount for name, amount in bundle.items() if amount} for bundle in bundles]
    words = _in_words(asked)
    group = placement_group(asked)
    try:
        # Most of the time it is there, and nothing has to be said.
        if not group.wait(_ASK_EVERY_S):
            say(f"nodes: waiting for {words}, for at most {_WITHIN_S / 60:.0f} minutes")
            _wait(group, words, growth)
    finally:
        remove_placement_group(group)


def _wait(group: PlacementGroup, words: str, growth: Growth) -> None:
    begun = may_fit_at = starts_at = time.monotonic()
    told: set[str] = set()
    before = _num_nodes()
    with Stage("nodes", None, "nodes") as stage:
        while not group.wait(_ASK_EVERY_S):
            now, state = time.monotonic(), _state()
            for failed in state.failed_instance_requests:
                if failed.reason not in told:
                    told.add(failed.reason)
                    say(f"nodes: {failed.ray_node_type_name} could not be started: {failed.reason}")
            starting = _starting(state)
            stage.advance(_num_nodes() - before, starting=starting or "none")
            if not any(group.id.hex() in request.details for request in state.infeasible_gang_resource_requests):
                may_fit_at = now
            if starting:
                starts_at = now
            seen = f"the cluster can grow to {growth.num_cpus:g} CPU, {growth.num_gpus:g} GPU ({growth})"
            if now - may_fit_at > _REFUSED_FOR_S:
                raise ValueError(
                    f"{words} do not fit: {seen}, and others may be using it; ask for less, end what else runs there, "
                    "or raise max_workers of the cluster"
                )
            if now - starts_at > _IDLE_FOR_S or now - begun > _WITHIN_S:
                raise ValueError(
                    f"no room for {words} after {now - begun:.0f} s, although {seen}; starting: {starting or 'nothing'}"
                    f"{''.join(f'; {reason}' for reason in sorted(told))}; see monitor.log on the head"
                )
        stage.advance(_num_nodes() - before)


def _state() -> AutoscalingState:
    """What the autoscaler last said of itself."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status())
    return reply.autoscaling_state


def _starting(state: AutoscalingState) -> str:
    """Nodes on their way, by type."""
    count: Counter[str] = Counter()
    for request in state.pending_instance_requests:
        count[request.ray_node_type_name] += request.count
    for instance in state.pending_instances:
        count[instance.ray_node_type_name] += 1
    return " + ".join(f"{number} {name}" for name, number in sorted(count.items()))


def _num_nodes() -> int:
    return sum(1 for node in ray.nodes() if node["Alive"])


def _in_words(bundles: Sequence[Mapping[str, float]]) -> str:
    count = Counter(tuple(sorted(bundle.items())) for bundle in bundles)
    return " and ".join(
        f"{number} x ({', '.join(f'{amount:g} {name}' for name, amount in bundle)})" for bundle, number in count.items()
    )
