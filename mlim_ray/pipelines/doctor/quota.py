"""How many processors AWS lets an account have at a time, against what a cluster may ask for."""

from collections import defaultdict
from dataclasses import dataclass

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.instance_types import machine_of
from mlim_ray.pipelines.doctor.machines import is_spot

CODES = {
    ("standard", False): ("L-1216C47A", "Running On-Demand Standard instances"),
    ("standard", True): ("L-34B43A08", "All Standard Spot Instance Requests"),
    ("g", False): ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("g", True): ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("p", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p", True): ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
}


@dataclass(frozen=True)
class Quota:
    """One of AWS's limits, which counts processors."""

    code: str
    name: str
    num_cpus: int
    """that the cluster asks for when all its machines of this kind are there"""
    smallest: int
    """processors of the smallest machine under it; with less, not one starts"""


def quotas_of(cluster: ClusterFile) -> list[Quota]:
    """The limits that a cluster on AWS comes under."""
    needed: dict[tuple[str, bool], int] = defaultdict(int)
    smallest: dict[tuple[str, bool], int] = {}
    for name, node in cluster.node_types.items():
        machine = machine_of(str(node["node_config"].get("InstanceType")))
        if machine is None:
            continue
        kind = (machine.quota, is_spot(node))
        count = 1 if name == cluster.head else min(node["max_workers"], cluster.max_workers)
        needed[kind] += machine.num_cpus * count
        smallest[kind] = min(smallest.get(kind, machine.num_cpus), machine.num_cpus)
    return [Quota(*CODES[kind], num_cpus, smallest[kind]) for kind, num_cpus in needed.items() if num_cpus]
