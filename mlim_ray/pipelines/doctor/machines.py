"""Machines against what the file says they offer: the head without work, GPUs as many as there are, spot on workers."""

from collections.abc import Iterator

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile, Config
from mlim_ray.pipelines.doctor.finding import Finding, error, warning
from mlim_ray.pipelines.doctor.instance_types import machine_of


def check_machines(cluster: ClusterFile) -> Iterator[Finding]:
    """Of a cluster on AWS."""
    beside_gpus = any(node["resources"].get("GPU") for node in cluster.worker_types.values())
    for name, node in cluster.node_types.items():
        where = f"available_node_types.{name}"
        resources, instance_type = node["resources"], str(node["node_config"].get("InstanceType"))
        machine = machine_of(instance_type)
        is_head = name == cluster.head
        if machine is None:
            what = f"InstanceType {instance_type} is not known here, so that its CPUs and GPUs were not compared"
            yield warning(where, what, "compare them with AWS's list")
        elif resources.get("CPU", 0) > machine.num_cpus:
            what = f"offers {resources['CPU']} CPU, and {instance_type} has {machine.num_cpus}"
            yield error(where, what, f"set CPU to {machine.num_cpus}")
        elif not is_head and resources.get("GPU", 0) != machine.num_gpus:
            what = f"offers {resources.get('GPU', 0)} GPU, and {instance_type} has {machine.num_gpus}"
            yield error(where, what, f"set GPU to {machine.num_gpus}")
        if is_head:
            yield from _head(where, node)
        elif not resources.get("CPU") and not resources.get("GPU"):
            yield error(where, "offers neither CPU nor GPU, so that no work fits it", "give its resources")
        elif resources.get("GPU") and not is_spot(node):
            what = "GPU workers on demand cost about three times the spot price"
            yield warning(where, what, "add InstanceMarketOptions: {MarketType: spot}; training resumes")
        elif not resources.get("GPU") and is_spot(node) and beside_gpus:
            what = "CPU workers on spot machines beside GPUs: a lost block is made again while GPUs wait"
            yield warning(where, what, "take InstanceMarketOptions out")
    if any(map(is_spot, cluster.worker_types.values())) and not any(
        "watch-spot" in text for _, text in _starts(cluster)
    ):
        what = "spot machines without `mlim-ray watch-spot`: nothing tells training of the notice"
        yield warning("worker_start_ray_commands", what, "add the command as in cluster/gpu.yaml")


def is_spot(node: Config) -> bool:
    """Whether a node type is of the spot market."""
    options = node["node_config"].get("InstanceMarketOptions")
    return isinstance(options, dict) and options.get("MarketType") == "spot"


def check_head_of_hosts(cluster: ClusterFile) -> Iterator[Finding]:
    """Of a cluster of one's own machines, whose resources stand in the start command."""
    for key, command in cluster.commands():
        if "ray start" in command and "--head" in command:
            if "--num-cpus=0" not in command or "--num-gpus=0" not in command:
                what = "the head takes work, and losing it ends the cluster"
                yield error(key, what, "add --num-cpus=0 --num-gpus=0")
            if "train_driver" not in command:
                what = "the head offers no train_driver, so that drivers of trials sit on workers"
                yield warning(key, what, """add --resources='{"train_driver":1000}'""")


def _head(where: str, node: Config) -> Iterator[Finding]:
    resources = node["resources"]
    if is_spot(node):
        yield error(
            where, "the head is a spot machine, and losing it ends the cluster", "take InstanceMarketOptions out"
        )
    machine = machine_of(str(node["node_config"].get("InstanceType")))
    if machine and machine.num_gpus:
        yield error(where, "the head has a GPU that nothing uses", "take a CPU machine such as m6i.2xlarge")
    # What is not written, Ray fills in from the type of the machine.
    if resources.get("CPU") != 0 or resources.get("GPU") != 0:
        yield error(where, f"the head takes work: it offers {resources}", 'set resources: {"CPU": 0, "GPU": 0}')
    if not resources.get("train_driver"):
        what = "the head offers no train_driver, so that drivers of trials sit on spot machines"
        yield warning(where, what, 'add "train_driver": 1000 to its resources')


def _starts(cluster: ClusterFile) -> list[tuple[str, str]]:
    return [(key, text) for key, text in cluster.commands() if key == "worker_start_ray_commands"]
