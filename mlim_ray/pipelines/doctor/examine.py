"""The order in which a file, a running cluster or this machine is looked at."""

from collections.abc import Iterator
from pathlib import Path

from mlim_ray.pipelines.cluster import this_machine
from mlim_ray.pipelines.doctor.account import check_account
from mlim_ray.pipelines.doctor.arithmetic import Experiment, check_arithmetic, largest_cluster
from mlim_ray.pipelines.doctor.closed_doors import (
    check_machine_doors,
    check_secrets,
    check_start_commands,
    check_token_file,
)
from mlim_ray.pipelines.doctor.cluster_file import ClusterFile, read_cluster_file
from mlim_ray.pipelines.doctor.finding import Diagnosis, Finding
from mlim_ray.pipelines.doctor.google import check_google_machines
from mlim_ray.pipelines.doctor.launch_request import check_launch_requests
from mlim_ray.pipelines.doctor.machines import check_head_of_hosts, check_machines
from mlim_ray.pipelines.doctor.node_counts import check_node_counts
from mlim_ray.pipelines.doctor.place import check_launcher, check_machine, check_program, check_storage
from mlim_ray.pipelines.doctor.quota import quotas_of
from mlim_ray.pipelines.doctor.roles import check_policies, check_profiles
from mlim_ray.pipelines.doctor.sent_files import check_mounts, check_placeholders
from mlim_ray.pipelines.doctor.versions import Here, check_versions


def examine_file(
    path: Path, project: Path, experiment: Experiment, *, place: str | None = None, offline: bool = False
) -> Diagnosis:
    """A cluster's YAML file: what is written there, and, unless `offline`, what AWS and the storage say.

    Args:
        path: of the file.
        project: the folder that `ray up` is started in.
        experiment: whose arithmetic is done on the cluster with all its machines.
        place: in S3; None: the file's own.
        offline: ask nobody.

    Raises:
        ValueError: there is no such file, or it is none of a cluster.
    """
    file = read_cluster_file(path, project)
    if isinstance(file, Finding):
        return Diagnosis([file])
    diagnosis = Diagnosis([*check_file(file), *check_sent(file)])
    diagnosis.add(_fitting(file, experiment))
    if offline:
        diagnosis.facts += [
            f"quota {quota.code}, {quota.name}: up to {quota.num_cpus} CPUs are asked for"
            for quota in (quotas_of(file) if file.kind == "aws" else [])
        ]
        return diagnosis
    if file.kind == "aws":
        diagnosis.findings += check_launcher()
        diagnosis.add(check_account(file))
    else:
        diagnosis.findings += [finding for program in ("ssh", "rsync") for finding in check_program(program)]
    place = place or file.storage
    if place is not None:
        diagnosis.add(check_storage(place))
    return diagnosis


def examine_machine(project: Path, experiment: Experiment, *, place: str | None = None) -> Diagnosis:
    """This machine, and whether the experiment fits it."""
    diagnosis = check_machine(project)
    diagnosis.add(check_arithmetic(this_machine(), experiment, "this machine"))
    if place is not None:
        diagnosis.add(check_storage(place))
    return diagnosis


def check_file(file: ClusterFile) -> Iterator[Finding]:
    """What is written in the file, whoever reads it."""
    yield from check_node_counts(file)
    yield from check_start_commands(file)
    yield from check_token_file(file)
    yield from check_secrets(file)
    yield from check_versions(file, Here.now())
    if file.kind == "aws":
        yield from check_launch_requests(file)
        yield from check_machines(file)
        yield from check_machine_doors(file)
        yield from check_profiles(file)
        yield from check_policies(file)
    if file.kind == "gcp":
        yield from check_google_machines(file)
    if file.kind == "local":
        yield from check_head_of_hosts(file)


def check_sent(file: ClusterFile) -> Iterator[Finding]:
    """What is still to be filled in, and what has to lie on this machine."""
    yield from check_placeholders(file)
    yield from check_mounts(file)


def _fitting(file: ClusterFile, experiment: Experiment) -> Diagnosis:
    if file.kind == "local":
        return Diagnosis(facts=[f"hosts: 1 head and {file.max_workers} workers; what they have is known once they run"])
    cluster = largest_cluster(file)
    size = f"{cluster.num_cpus:g} CPU, {cluster.num_gpus:g} GPU ({cluster.growth})"
    diagnosis = Diagnosis(facts=[f"with all machines: {size}"])
    diagnosis.add(check_arithmetic(cluster, experiment, "max_workers"))
    return diagnosis
