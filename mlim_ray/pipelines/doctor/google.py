"""Machines of a cluster on Google Cloud: what Ray fills in where nothing is said, a head without work, GPUs, spot."""

import re
from collections.abc import Iterator

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile, Config
from mlim_ray.pipelines.doctor.finding import Finding, error, warning

_GPUS_OF_G2 = {24: 2, 48: 4, 96: 8}
"""of a g2-standard of so many CPUs; all other sizes have one"""
_TYPE = re.compile(r"(?P<family>[a-z]\d[a-z]*)-(?:standard|highmem|highcpu)-(?P<cpus>\d+)|a[23]-\w+-(?P<gpus>\d+)g")


def check_google_machines(cluster: ClusterFile) -> Iterator[Finding]:
    """Of each node type."""
    for name, node in cluster.node_types.items():
        where, machine, resources = f"available_node_types.{name}", node["node_config"], node["resources"]
        if not machine.get("networkInterfaces"):
            what = "no networkInterfaces: Ray takes the first subnet of the project, with a public address"
            yield error(where, what, "name a subnet of your own as in cluster/gcp.yaml")
        images = [(disk.get("initializeParams") or {}).get("sourceImage", "") for disk in machine.get("disks") or [{}]]
        if any(not image or "/family/" in image for image in images):
            what = "an image that is not named exactly: machines that come later may have another one"
            yield error(where, what, "name an image, not its family")
        if name == cluster.head:
            yield from _head(where, node)
            continue
        num_gpus = gpus_of(str(machine.get("machineType")), machine)
        if num_gpus is not None and resources.get("GPU", 0) != num_gpus:
            what = f"offers {resources.get('GPU', 0)} GPU, and {machine['machineType']} has {num_gpus}"
            yield error(where, what, f"set GPU to {num_gpus}")
        if resources.get("GPU") and not is_spot(node):
            what = "GPU workers on demand cost about three times the spot price"
            yield warning(where, what, "add scheduling as in cluster/gcp.yaml; training resumes")


def gpus_of(machine_type: str, machine: Config) -> int | None:
    """GPUs of a machine, of its type and those that are attached; None for a type that is not known here."""
    found = _TYPE.fullmatch(machine_type)
    if found is None:
        return None
    attached = sum(int(each.get("acceleratorCount", 0)) for each in machine.get("guestAccelerators") or [])
    if found["gpus"]:
        return int(found["gpus"])
    return _GPUS_OF_G2.get(int(found["cpus"]), 1) if found["family"] == "g2" else attached


def is_spot(node: Config) -> bool:
    """Whether a node type is of the spot market."""
    scheduling = node["node_config"].get("scheduling") or {}
    return scheduling.get("provisioningModel") == "SPOT" or scheduling.get("preemptible") is True


def _head(where: str, node: Config) -> Iterator[Finding]:
    resources = node["resources"]
    if is_spot(node):
        yield error(where, "the head is a spot machine, and losing it ends the cluster", "take scheduling out")
    # What is not written, Ray fills in from the type of the machine.
    if resources.get("CPU") != 0 or resources.get("GPU") != 0:
        yield error(where, f"the head takes work: it offers {resources}", 'set resources: {"CPU": 0, "GPU": 0}')
    if not resources.get("train_driver"):
        what = "the head offers no train_driver, so that drivers of trials sit on spot machines"
        yield warning(where, what, 'add "train_driver": 1000 to its resources')
