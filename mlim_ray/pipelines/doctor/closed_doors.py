"""Who can reach a cluster: security groups, the metadata service, disks, the dashboard, the token.

Ray makes, where a file is silent, a role with full access to EC2 and S3, and a security group with SSH open to the
world, with version 1 of the metadata service and no token: seen by running it.
"""

import re
import shlex
from collections.abc import Iterator

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Finding, error, warning

_START = re.compile(r"\bray start\b")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_machine_doors(cluster: ClusterFile) -> Iterator[Finding]:
    """Of each node type of a cluster on AWS."""
    for name, node in cluster.node_types.items():
        where, machine = f"available_node_types.{name}.node_config", node["node_config"]
        if not machine.get("SecurityGroupIds"):
            what = "no SecurityGroupIds: Ray makes a group with SSH open to the world"
            yield error(where, what, "name a group of your own")
        if not machine.get("ImageId"):
            what = "no ImageId: Ray takes an image of Ubuntu 18.04"
            yield error(where, what, "name the id of an image, see docs/cluster_aws.md")
        if (machine.get("MetadataOptions") or {}).get("HttpTokens") != "required":
            what = "the metadata service gives the role's credentials to forged requests"
            yield error(where, what, "set MetadataOptions: {HttpTokens: required}")
        disks = [disk["Ebs"] for disk in machine.get("BlockDeviceMappings") or [] if disk.get("Ebs")]
        if not disks or not all(disk.get("Encrypted") is True for disk in disks):
            yield error(where, "a disk that is not encrypted", "set Encrypted: true for each of BlockDeviceMappings")
    if cluster.full["provider"].get("security_group"):
        what = "Ray adds SSH from anywhere to a group that stands here"
        yield error("provider.security_group", what, "take it out, and name SecurityGroupIds in each node_config")


def check_start_commands(cluster: ClusterFile) -> Iterator[Finding]:
    """The token before each `ray start`, and the dashboard on the loopback."""
    starts = [(key, command) for key, command in cluster.commands() if _START.search(command)]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        if key not in {start for start, _ in starts}:
            yield error(key, "no `ray start`", "add it as in cluster/gpu.yaml")
    for key, command in starts:
        if not re.search(r"\bRAY_AUTH_MODE=token\s+(\S+=\S+\s+)*(\S*/)?ray start\b", command):
            what = "without the token, whoever reaches a port runs what they like"
            yield error(key, what, "write RAY_AUTH_MODE=token before `ray start`")
        host = _option(command, "--dashboard-host")
        if host is not None and host not in _LOOPBACK:
            what = f"the dashboard and the jobs API listen on {host}"
            yield error(key, what, "set --dashboard-host=127.0.0.1; `ray dashboard` brings it to you")


def check_token_file(cluster: ClusterFile) -> Iterator[Finding]:
    """That the token's file goes to every node."""
    mounts = cluster.full.get("file_mounts") or {}
    if not any(remote.endswith("/.ray/auth_token") for remote in mounts):
        what = "the token's file goes to no node, so that none of them starts"
        yield error("file_mounts", what, "add ~/.ray/auth_token as in cluster/gpu.yaml")


def check_secrets(cluster: ClusterFile) -> Iterator[Finding]:
    """Keys in the file itself: it is sent to the head, and logged."""
    text = cluster.path.read_text(encoding="utf-8")
    pattern = r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|aws_secret_access_key\s*[=:]\s*\S|PRIVATE KEY-----|RAY_AUTH_TOKEN=\S"
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(pattern, line, re.IGNORECASE):
            mend = "take it out, change it, and give machines a role or a file of their own"
            yield error(f"{cluster.path}, line {number}", "holds a secret", mend)
    if any("RAY_AUTH_MODE=disabled" in command for _, command in cluster.commands()):
        yield warning(str(cluster.path), "RAY_AUTH_MODE=disabled in a command", "take it out")


def _option(command: str, name: str) -> str | None:
    """The value of the last such option."""
    value = None
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    for index, word in enumerate(words):
        if word.startswith(f"{name}="):
            value = word.partition("=")[2]
        elif word == name and index + 1 < len(words):
            value = words[index + 1]
    return value
