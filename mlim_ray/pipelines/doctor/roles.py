"""What machines on AWS may do: a profile for each node type, and the policies beside the file against its storage."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mlim_ray.data.s3.objects import split
from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Finding, error

PLACEHOLDER = "REPLACE_ME"
"""in what a person has to fill in"""
POLICIES = ("policy-head.json", "policy-worker.json")
_NEEDED = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
_PROBE = "some/key"


def check_profiles(cluster: ClusterFile) -> Iterator[Finding]:
    """A profile of one's own on every node type."""
    for name, node in cluster.node_types.items():
        if not node["node_config"].get("IamInstanceProfile"):
            where = f"available_node_types.{name}.node_config"
            if name == cluster.head:
                what = "no IamInstanceProfile: Ray makes a role with full access to EC2 and S3"
            else:
                what = "no IamInstanceProfile: workers would have no access to S3"
            yield error(where, what, "name a profile of your own, see docs/cluster_aws.md")


def check_policies(cluster: ClusterFile) -> Iterator[Finding]:
    """The policies beside the file: nothing full, S3 below the file's storage only, and all of it that runs need."""
    for name in POLICIES:
        path = cluster.path.parent / name
        if path.exists() and PLACEHOLDER not in path.read_text(encoding="utf-8"):
            yield from _policy(path, cluster.storage)


def _policy(path: Path, storage: str | None) -> Iterator[Finding]:
    try:
        allowed = [_lists(entry) for entry in json.loads(path.read_text())["Statement"] if entry["Effect"] == "Allow"]
    except (ValueError, KeyError, TypeError) as problem:
        yield error(str(path), f"is no policy ({type(problem).__name__})", "take the project's own file")
        return
    for actions, resources in allowed:
        full = [action for action in actions if action in ("*", "s3:*", "ec2:*", "iam:*")]
        if full:
            yield error(str(path), f"allows {', '.join(full)}", "name the actions that are needed")
        if "iam:PassRole" in actions and "*" in resources:
            yield error(str(path), "lets the head give machines any role", "name the workers' role")
    if storage is None:
        return
    bucket, prefix = split(storage)
    own = f"arn:aws:s3:::{bucket}"
    for actions, resources in allowed:
        outside = [
            arn
            for arn in resources
            if any(action.startswith("s3:") for action in actions)
            and arn != own
            and not arn.startswith(f"{own}/{prefix}")
        ]
        if outside:
            yield error(str(path), f"allows {', '.join(actions)} on {', '.join(outside)}", f"name {own}/{prefix}/*")
    wanted = [(action, f"{own}/{prefix}/{_PROBE}" if prefix else f"{own}/{_PROBE}") for action in _NEEDED]
    missing = [
        action
        for action, arn in [*wanted, ("s3:ListBucket", own)]
        if not any(
            action in actions and any(fnmatchcase(arn, to) for to in resources) for actions, resources in allowed
        )
    ]
    if missing:
        yield error(
            str(path), f"does not allow {', '.join(missing)} on {storage}", "add it as in the project's own file"
        )


def _lists(entry: dict[str, Any]) -> tuple[list[str], list[str]]:
    actions, resources = entry["Action"], entry["Resource"]
    return ([actions] if isinstance(actions, str) else actions), (
        [resources] if isinstance(resources, str) else resources
    )
