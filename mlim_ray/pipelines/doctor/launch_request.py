"""`node_config` as the request that it becomes: keys that EC2 does not know, and values of the wrong kind."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from mlim_ray.config.wording import nearest
from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Finding, error

_OF_RAY = frozenset({"SubnetIds"})
"""keys that Ray takes out before it asks EC2"""


def check_launch_requests(cluster: ClusterFile) -> Iterator[Finding]:
    """Ray hands `node_config` on unseen; a wrong key fails, or is lost, when the first machine is asked for."""
    shape = _request_shape()
    for name, node in cluster.node_types.items():
        where = f"available_node_types.{name}.node_config"
        given = {key: value for key, value in node["node_config"].items() if key not in _OF_RAY}
        report = ParamValidator().validate(given | {"MinCount": 1, "MaxCount": 1}, shape)
        for line in report.generate_report().splitlines():
            yield _finding(where, line)


@functools.cache
def _request_shape() -> Any:
    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _finding(where: str, line: str) -> Finding:
    unknown = re.match(r'Unknown parameter in (.+?): "(.+?)", must be one of: (.+)', line)
    if unknown is None:
        return error(where, f"EC2 would refuse it: {line}", "see RunInstances in AWS's reference")
    inside = "" if unknown[1] == "input" else f" in {unknown[1].removeprefix('input.')}"
    guess = nearest(unknown[2], unknown[3].split(", "))
    mend = f"did you mean {guess}?" if guess else "see RunInstances in AWS's reference"
    return error(where, f"{unknown[2]}{inside} is no key of EC2", mend)
