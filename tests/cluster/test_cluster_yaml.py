"""Cluster files are valid for Ray and keep what its validator overlooks: money, versions, closed doors."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ray = pytest.importorskip("ray", reason="the cluster files are checked with Ray's own validator")

from ray.autoscaler._private.util import prepare_config, validate_config  # noqa: E402

PROJECT = Path(__file__).resolve().parents[2]
CLUSTER_FILES = sorted((PROJECT / "cluster").glob("*.yaml"))

# Processors and GPUs of the machines that the files name; a new type has to be entered here.
INSTANCE_TYPES = {
    "m6i.2xlarge": (8, 0),
    "m6i.4xlarge": (16, 0),
    "g5.4xlarge": (16, 1),
    "g5.12xlarge": (48, 4),
}
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
Config = dict[str, Any]


def load(path: Path) -> Config:
    config: Config = yaml.safe_load(path.read_text(encoding="ascii"))
    return config


def pinned_ray() -> str:
    lines = (PROJECT / "constraints.txt").read_text(encoding="ascii").splitlines()
    return next(line.removeprefix("ray==") for line in lines if line.startswith("ray=="))


def prepared(config: Config) -> Config:
    """What Ray makes of the file, its defaults filled in: `ray up` runs this and not the file."""
    full: Config = prepare_config(copy.deepcopy(config))
    validate_config(full)
    return full


def commands(config: Config) -> list[tuple[str, str]]:
    """All commands that run on a node, with the key they stand under."""
    pairs = [(key, command) for key in COMMANDS for command in config.get(key) or []]
    for name, node in config.get("available_node_types", {}).items():
        pairs += [(f"{name}.worker_setup_commands", command) for command in node.get("worker_setup_commands") or []]
    return pairs


def findings(config: Config) -> list[str]:
    """All that is wrong with a cluster file that Ray accepts, one line each; empty if nothing is."""
    full = prepared(config)
    found = [*node_counts(full), *start_commands(full), *versions(full), *synced_files(full)]
    if full["provider"]["type"] == "aws":
        found += [*machines(full), *closed_doors(full)]
    return found


def node_counts(config: Config) -> Iterator[str]:
    total = config["max_workers"]
    for name, node in config["available_node_types"].items():
        low, high = node.get("min_workers", 0), node.get("max_workers", total)
        if low > high:
            yield f"{name}: min_workers {low} is above max_workers {high}"
        if high > total:
            yield f"{name}: max_workers {high} is above the cluster's {total}"
    if sum(node.get("min_workers", 0) for node in config["available_node_types"].values()) > total:
        yield f"the min_workers of all types are above the cluster's max_workers {total}"
    if not config.get("idle_timeout_minutes"):
        yield "idle_timeout_minutes is missing: idle machines would stay"


def machines(config: Config) -> Iterator[str]:
    """Head on demand, without work; GPUs on spot machines, as many as the machine has."""
    head = config["head_node_type"]
    for name, node in config["available_node_types"].items():
        resources, machine = node["resources"], node["node_config"]
        spot = machine.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        num_cpus, num_gpus = INSTANCE_TYPES.get(machine["InstanceType"], (None, None))
        if num_cpus is None:
            yield f"{name}: unknown InstanceType {machine['InstanceType']}"
        elif resources.get("CPU", 0) > num_cpus or (name != head and resources.get("GPU", 0) != num_gpus):
            has = f"{num_cpus} CPUs and {num_gpus} GPUs"
            yield f"{name}: {machine['InstanceType']} has {has}, not {resources}"
        if name == head:
            if spot:
                yield f"{name}: the head must be on demand"
            if num_gpus or resources.get("GPU") != 0 or resources.get("CPU") != 0:
                yield f"{name}: the head must be a CPU machine that offers CPU 0 and GPU 0, not {resources}"
            if not resources.get("train_driver"):
                yield f"{name}: the head must offer train_driver"
        elif resources.get("GPU") and not spot:
            yield f"{name}: GPU workers must be spot machines"
        elif not resources.get("GPU") and spot:
            yield f"{name}: CPU workers must be on demand"
        if name != head and node.get("min_workers", 0) != 0:
            yield f"{name}: min_workers must be 0, else it costs money while idle"


def closed_doors(config: Config) -> Iterator[str]:
    for name, node in config["available_node_types"].items():
        machine = node["node_config"]
        for key in ("SecurityGroupIds", "IamInstanceProfile", "ImageId"):
            if not machine.get(key):
                yield f"{name}: own {key} is missing"
        if machine.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: MetadataOptions.HttpTokens must be required"
        disks = [disk["Ebs"] for disk in machine.get("BlockDeviceMappings", []) if "Ebs" in disk]
        if not disks or not all(disk.get("Encrypted") is True for disk in disks):
            yield f"{name}: every disk must be encrypted"
        if any(disk.get("VolumeType") != "gp3" for disk in disks):
            yield f"{name}: disks must be gp3"
    if config["provider"].get("security_group"):
        yield "provider.security_group: Ray adds SSH from anywhere to it"


def start_commands(config: Config) -> Iterator[str]:
    starts = [(key, command) for key, command in commands(config) if re.search(r"\bray start\b", command)]
    if {key for key, _ in starts} != {"head_start_ray_commands", "worker_start_ray_commands"}:
        yield "`ray start` is missing for the head or the workers"
    for key, command in starts:
        if not re.search(r"\bRAY_AUTH_MODE=token\s+ray start\b", command):
            yield f"{key}: RAY_AUTH_MODE=token must stand before `ray start`"
        if "--head" in command and "--dashboard-host=127.0.0.1" not in command:
            yield f"{key}: --dashboard-host=127.0.0.1 is missing"
        if "--dashboard-host=0.0.0.0" in command:
            yield f"{key}: the dashboard would listen on all addresses"


def versions(config: Config) -> Iterator[str]:
    """One image for all nodes with the pinned Ray; nothing else installs a Ray, or anything unpinned."""
    docker = config.get("docker", {})
    images = [docker[key] for key in ("image", "head_image", "worker_image") if docker.get(key)]
    images += [
        image
        for node in config["available_node_types"].values()
        for key, image in node.get("docker", {}).items()
        if key.endswith("image")
    ]
    for image in images:
        tag = re.fullmatch(r"rayproject/ray:(\d+\.\d+\.\d+)-py3(\d\d)(-gpu|-cpu)?", image)
        if tag is None:
            yield f"docker: {image} is not rayproject/ray with exact Ray and Python versions"
        elif tag[1] != pinned_ray():
            yield f"docker: {image} holds Ray {tag[1]}, constraints.txt {pinned_ray()}"
        elif int(tag[2]) < 11:
            yield f"docker: {image} holds Python 3.{tag[2]}, 3.11 is needed"
    if len(set(images)) > 1:
        yield f"docker: head and workers have different images {sorted(set(images))}"
    for key, command in commands(config):
        if "ray-wheels" in command or "nightly" in command or ".dev0" in command:
            yield f"{key}: a nightly build of Ray: {command}"
        if re.search(r"\bpip3? install\b", command) and "-c constraints.txt" not in command:
            yield f"{key}: pip install without constraints.txt: {command}"


def synced_files(config: Config) -> Iterator[str]:
    mounts = config.get("file_mounts", {})
    if not any(remote.endswith("/.ray/auth_token") for remote in mounts):
        yield "file_mounts: the token file is missing"
    kept_out = {pattern.strip("/") for pattern in config.get("rsync_exclude", [])}
    if "." in mounts.values() and not {".venv", "runs", ".git"} <= kept_out:
        yield "rsync_exclude: .venv, runs and .git must stay at home"


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=lambda path: path.name)
def test_a_cluster_file_is_valid_and_safe(path: Path) -> None:
    assert findings(load(path)) == []


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=lambda path: path.name)
def test_a_cluster_file_holds_no_secret_and_no_account(path: Path) -> None:
    text = path.read_text(encoding="ascii")
    assert not re.search(r"\b\d{12}\b", text), "an account number"
    assert not re.search(r"AKIA|ASIA|aws_secret|PRIVATE KEY", text, re.IGNORECASE), "a key"


def test_the_pinned_ray_is_the_installed_one() -> None:
    assert pinned_ray() == ray.__version__


def node(config: Config, name: str) -> Config:
    found: Config = config["available_node_types"][name]
    return found


def open_dashboard(config: Config) -> None:
    config["head_start_ray_commands"] = [
        command.replace("127.0.0.1", "0.0.0.0") for command in config["head_start_ray_commands"]
    ]


def no_token(config: Config) -> None:
    config["worker_start_ray_commands"] = [
        command.replace("RAY_AUTH_MODE=token ", "") for command in config["worker_start_ray_commands"]
    ]


def other_image_for_workers(config: Config) -> None:
    config["docker"]["worker_image"] = config["docker"]["image"].replace("-gpu", "")


# Each breaks one thing in gpu.yaml; the second part is what the finding must say.
BROKEN: dict[str, tuple[Callable[[Config], object], str]] = {
    "more machines at least than at most": (
        lambda c: node(c, "gpu_1").update(min_workers=7, max_workers=2),
        "min_workers 7 is above max_workers 2",
    ),
    "a worker that never goes": (lambda c: node(c, "cpu").update(min_workers=1), "min_workers must be 0"),
    "a spot head": (
        lambda c: node(c, "head")["node_config"].update(InstanceMarketOptions={"MarketType": "spot"}),
        "head must be on demand",
    ),
    "a head that takes work": (lambda c: node(c, "head")["resources"].update(CPU=8), "CPU 0 and GPU 0"),
    "a head with a GPU": (
        lambda c: node(c, "head")["node_config"].update(InstanceType="g5.4xlarge"),
        "must be a CPU machine",
    ),
    "GPU workers at full price": (
        lambda c: node(c, "gpu_4")["node_config"].pop("InstanceMarketOptions"),
        "must be spot machines",
    ),
    "more GPUs than the machine has": (
        lambda c: node(c, "gpu_1")["resources"].update(GPU=2),
        "has 16 CPUs and 1 GPUs",
    ),
    "the old metadata service": (
        lambda c: node(c, "cpu")["node_config"].update(MetadataOptions={"HttpTokens": "optional"}),
        "HttpTokens must be required",
    ),
    "a plain disk": (
        lambda c: node(c, "gpu_1")["node_config"]["BlockDeviceMappings"][0]["Ebs"].pop("Encrypted"),
        "must be encrypted",
    ),
    "Ray's own security group": (
        lambda c: node(c, "gpu_1")["node_config"].pop("SecurityGroupIds"),
        "own SecurityGroupIds is missing",
    ),
    "Ray's own role": (
        lambda c: node(c, "head")["node_config"].pop("IamInstanceProfile"),
        "own IamInstanceProfile is missing",
    ),
    "an open dashboard": (open_dashboard, "--dashboard-host=127.0.0.1 is missing"),
    "the default start commands": (
        lambda c: c.pop("head_start_ray_commands"),
        "RAY_AUTH_MODE=token must stand",
    ),
    "workers without the token": (no_token, "worker_start_ray_commands: RAY_AUTH_MODE=token"),
    "no token file": (lambda c: c["file_mounts"].popitem(), "token file is missing"),
    "the default nightly build": (lambda c: c.pop("setup_commands"), "nightly build"),
    "the default newest boto3": (lambda c: c.pop("head_setup_commands"), "without constraints.txt"),
    "the newest image": (
        lambda c: c["docker"].update(image="rayproject/ray:latest-gpu"),
        "exact Ray and Python",
    ),
    "another Ray": (lambda c: c["docker"].update(image="rayproject/ray:2.59.0-py311"), "holds Ray 2.59.0"),
    "another image for workers": (other_image_for_workers, "different images"),
    "everything is sent": (lambda c: c.update(rsync_exclude=[]), "must stay at home"),
    "idle machines stay": (lambda c: c.update(idle_timeout_minutes=0), "idle_timeout_minutes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_cluster_file_is_found(name: str) -> None:
    damage, expected = BROKEN[name]
    config = copy.deepcopy(load(PROJECT / "cluster" / "gpu.yaml"))
    damage(config)
    assert any(expected in line for line in findings(config)), findings(config)


def test_ray_itself_refuses_an_unknown_key() -> None:
    config = load(PROJECT / "cluster" / "gpu.yaml")
    config["idle_timeout_min"] = 5
    with pytest.raises(Exception, match="idle_timeout_min"):
        prepared(config)
