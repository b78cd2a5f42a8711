"""What AWS itself says of a cluster's file: credentials, security groups, images, profiles, zones and quotas.

Only asks, changes nothing. It needs botocore alone, which reading S3 brings.
"""

from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Diagnosis, Finding, error, warning
from mlim_ray.pipelines.doctor.machines import is_spot
from mlim_ray.pipelines.doctor.quota import Quota, quotas_of
from mlim_ray.pipelines.doctor.roles import PLACEHOLDER

_ANYWHERE = ("0.0.0.0/0", "::/0")
_ALL_PORTS = "-1"
_FULL = ("FullAccess", "AdministratorAccess", "PowerUserAccess")
_TIMEOUTS = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})


def check_account(cluster: ClusterFile) -> Diagnosis:
    """All questions to AWS, or the one finding that it cannot be asked."""
    session = botocore.session.get_session()
    session.set_config_variable("metadata_service_timeout", 1)
    session.set_config_variable("metadata_service_num_attempts", 1)
    region = cluster.full["provider"].get("region")

    def client(service: str) -> Any:
        return session.create_client(service, region_name=region, config=_TIMEOUTS)

    try:
        arn = client("sts").get_caller_identity()["Arn"]
    except (BotoCoreError, ClientError) as problem:
        mend = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; --offline asks nobody"
        return Diagnosis([error("credentials", f"AWS does not know who asks: {_plain(problem)}", mend)])
    diagnosis = Diagnosis(facts=[f"credentials: {arn.rpartition(':')[2]}, region {region}"])
    ec2, iam = client("ec2"), client("iam")
    for where, ask in (
        ("security groups", lambda: _groups(cluster, ec2)),
        ("images", lambda: _images(cluster, ec2)),
        ("profiles", lambda: _profiles(cluster, iam)),
        ("zones", lambda: _zones(cluster, ec2)),
    ):
        try:
            diagnosis.findings += list(ask())
        except (BotoCoreError, ClientError) as problem:
            what = f"could not be asked about: {_plain(problem)}"
            diagnosis.findings.append(warning(where, what, "let your own user read EC2 and IAM"))
    diagnosis.add(_quotas(cluster, client("service-quotas")))
    return diagnosis


def _groups(cluster: ClusterFile, ec2: Any) -> Iterator[Finding]:
    for group_id in _named(cluster, "SecurityGroupIds"):
        try:
            (group,) = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
        except ClientError as problem:
            yield error(group_id, f"AWS has no such group here ({_plain(problem)})", "make it, see docs/cluster_aws.md")
            continue
        among_members, reached_by_ssh = False, False
        for rule in group["IpPermissions"]:
            ports = _ports(rule)
            ranges = [part["CidrIp"] for part in rule.get("IpRanges", [])]
            ranges += [part["CidrIpv6"] for part in rule.get("Ipv6Ranges", [])]
            if set(ranges) & set(_ANYWHERE):
                yield error(group_id, f"{ports} open to the world", "revoke the rule; allow your own address only")
            own = any(pair.get("GroupId") == group_id for pair in rule.get("UserIdGroupPairs", []))
            among_members |= own and rule["IpProtocol"] == _ALL_PORTS
            reached_by_ssh |= bool(ranges) and _covers_ssh(rule)
        if not among_members:
            what = "its members cannot reach each other, so that no worker joins"
            yield error(group_id, what, "allow all traffic from the group itself")
        if not reached_by_ssh:
            what = "no SSH from any address, so that `ray up` waits in vain"
            yield warning(group_id, what, "allow port 22 from your own address")


def _images(cluster: ClusterFile, ec2: Any) -> Iterator[Finding]:
    for image in _named(cluster, "ImageId"):
        try:
            found = ec2.describe_images(ImageIds=[image])["Images"]
        except ClientError:
            found = []
        if not found:
            yield error(image, "there is no such image in this region", "name one, see docs/cluster_aws.md")


def _profiles(cluster: ClusterFile, iam: Any) -> Iterator[Finding]:
    profiles = {name for node in cluster.node_types.values() if (name := _profile(node["node_config"]))}
    for name in sorted(profiles):
        try:
            profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        except ClientError as problem:
            yield error(
                name, f"there is no such instance profile ({_plain(problem)})", "make it, see docs/cluster_aws.md"
            )
            continue
        if not profile["Roles"]:
            yield error(name, "the profile has no role", f"add the role {name} to it")
        for role in profile["Roles"]:
            attached = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
            for policy in attached:
                if policy["PolicyName"].endswith(_FULL):
                    what = f"the role {role['RoleName']} has {policy['PolicyName']}"
                    yield error(name, what, "detach it; the policies beside the file are enough")
    if any(is_spot(node) for node in cluster.worker_types.values()):
        try:
            iam.get_role(RoleName="AWSServiceRoleForEC2Spot")
        except ClientError:
            what = "the account has no role for spot machines yet, and the head may not make it"
            mend = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
            yield warning("AWSServiceRoleForEC2Spot", what, mend)


def _zones(cluster: ClusterFile, ec2: Any) -> Iterator[Finding]:
    zones = [zone.strip() for zone in str(cluster.full["provider"].get("availability_zone") or "").split(",")]
    types = {name: str(node["node_config"].get("InstanceType")) for name, node in cluster.node_types.items()}
    filters = [{"Name": "instance-type", "Values": sorted(set(types.values()))}, {"Name": "location", "Values": zones}]
    if not all(zones):
        return
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=filters
    )
    offered = {offer["InstanceType"] for page in pages for offer in page["InstanceTypeOfferings"]}
    for name, instance_type in types.items():
        if instance_type not in offered:
            what = f"{instance_type} is offered in none of {', '.join(zones)}"
            yield error(f"available_node_types.{name}", what, "name other zones or another type")


def _quotas(cluster: ClusterFile, service: Any) -> Diagnosis:
    diagnosis = Diagnosis()
    for quota in quotas_of(cluster):
        asked = f"quota {quota.code}, {quota.name}: up to {quota.num_cpus} CPUs are asked for"
        try:
            allowed = service.get_service_quota(ServiceCode="ec2", QuotaCode=quota.code)["Quota"]["Value"]
        except (BotoCoreError, ClientError):
            diagnosis.facts.append(f"{asked}; see whether the account has as many (Service Quotas, EC2)")
            continue
        diagnosis.facts.append(f"{asked}, {allowed:g} allowed")
        if allowed < quota.num_cpus:
            diagnosis.findings.append(_short_of(quota, allowed))
    return diagnosis


def _short_of(quota: Quota, allowed: float) -> Finding:
    mend = f"ask for {quota.num_cpus} in Service Quotas, which takes a day, or lower max_workers"
    what = f"{quota.name}: {allowed:g} CPUs allowed, up to {quota.num_cpus} asked for"
    if allowed < quota.smallest:
        return error(quota.code, f"{what}; not one such machine would start", mend)
    return warning(quota.code, f"{what}; some machines would never come", mend)


def _named(cluster: ClusterFile, key: str) -> list[str]:
    """The values of a key in all node types, each once, without placeholders."""
    given: list[str] = []
    for node in cluster.node_types.values():
        value = node["node_config"].get(key) or []
        given += [value] if isinstance(value, str) else value
    return [value for value in dict.fromkeys(given) if PLACEHOLDER not in value]


def _profile(machine: dict[str, Any]) -> str | None:
    profile = machine.get("IamInstanceProfile") or {}
    return profile.get("Name") or str(profile.get("Arn", "")).rpartition("/")[2] or None


def _ports(rule: dict[str, Any]) -> str:
    if rule["IpProtocol"] == _ALL_PORTS:
        return "all ports are"
    low, high = rule.get("FromPort"), rule.get("ToPort")
    return f"port {low} is" if low == high else f"ports {low} to {high} are"


def _covers_ssh(rule: dict[str, Any]) -> bool:
    return rule["IpProtocol"] == _ALL_PORTS or rule.get("FromPort", 0) <= 22 <= rule.get("ToPort", 65535)


def _plain(problem: Exception) -> str:
    if isinstance(problem, ClientError):
        return str(problem.response["Error"].get("Code", "an error"))
    return " ".join(str(problem).split())
