"""What AWS is asked about a cluster's file, against moto's EC2, IAM and STS over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

server = pytest.importorskip("moto.server", reason="moto stands in for AWS's API: pip install 'moto[server]'")

from mlim_ray.pipelines.doctor.account import check_account  # noqa: E402
from mlim_ray.pipelines.doctor.cluster_file import ClusterFile, read_cluster_file  # noqa: E402
from tests.cluster.filled import filled_project  # noqa: E402

REGION = "us-west-2"
ALL_OF_S3 = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
SPOT_ROLE = "AWSServiceRoleForEC2Spot"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def account(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return Account()


class Account:
    """An account that is ready for gpu.yaml, as docs/cluster_aws.md makes one."""

    def __init__(self) -> None:
        session = botocore.session.get_session()
        self.ec2 = session.create_client("ec2", region_name=REGION)
        self.iam = session.create_client("iam", region_name=REGION)
        vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        known = {
            group["GroupName"]: group["GroupId"] for group in self.ec2.describe_security_groups()["SecurityGroups"]
        }
        if "mlim" in known:
            self.ec2.delete_security_group(GroupId=known["mlim"])
        self.group = self.ec2.create_security_group(GroupName="mlim", Description="mlim", VpcId=vpc)["GroupId"]
        self.allow({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]})
        self.allow(ssh_from("203.0.113.7/32"))
        self.image = self.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for name in ("mlim-head", "mlim-worker", SPOT_ROLE):
            self.make_role(name)

    def allow(self, rule: dict[str, Any]) -> None:
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])

    def make_role(self, name: str) -> None:
        if name not in {role["RoleName"] for role in self.iam.list_roles()["Roles"]}:
            self.iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
            self.iam.create_instance_profile(InstanceProfileName=name)
            self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    def file(self, project: Path) -> ClusterFile:
        path = project / "cluster" / "gpu.yaml"
        text = path.read_text().replace("sg-0123456789abcdef0", self.group)
        path.write_text(text.replace("ami-0123456789abcdef0", self.image))
        file = read_cluster_file(path, project)
        assert isinstance(file, ClusterFile)
        return file


def ssh_from(address: str) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": address}]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return filled_project(tmp_path, monkeypatch)


def told(file: ClusterFile) -> list[str]:
    return [finding.line for finding in check_account(file).findings]


def test_a_prepared_account_has_nothing_wrong(account: Account, project: Path) -> None:
    diagnosis = check_account(account.file(project))
    assert diagnosis.findings == []
    assert any(fact.startswith("credentials: ") and fact.endswith(f"region {REGION}") for fact in diagnosis.facts)
    assert sum(fact.startswith("quota L-") for fact in diagnosis.facts) == 2


def test_rules_of_the_group_are_looked_at(account: Account, project: Path) -> None:
    file = account.file(project)
    account.allow(ssh_from("0.0.0.0/0"))
    (line,) = told(file)
    assert "port 22 is open to the world" in line
    account.ec2.revoke_security_group_ingress(GroupId=account.group, IpPermissions=[ssh_from("0.0.0.0/0")])
    account.ec2.revoke_security_group_ingress(GroupId=account.group, IpPermissions=[ssh_from("203.0.113.7/32")])
    (line,) = told(file)
    assert line.startswith("warning: ") and "no SSH from any address" in line
    among = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": account.group}]}
    account.ec2.revoke_security_group_ingress(GroupId=account.group, IpPermissions=[among])
    assert any("cannot reach each other" in line for line in told(file))


def test_what_is_not_there_is_named(account: Account, project: Path) -> None:
    file = account.file(project)
    for node in file.node_types.values():
        node["node_config"] |= {
            "ImageId": "ami-00000000000000000",
            "SecurityGroupIds": ["sg-00000000000000000"],
            "IamInstanceProfile": {"Name": "mlim-none"},
        }
    lines = told(file)
    assert len(lines) == 3
    for part in ("AWS has no such group", "no such image", "no such instance profile"):
        assert any(part in line for line in lines), lines


def test_a_role_with_full_access_is_found(account: Account, project: Path) -> None:
    file = account.file(project)
    policy = account.iam.create_policy(PolicyName="MyS3FullAccess", PolicyDocument=ALL_OF_S3)
    arn = policy["Policy"]["Arn"]
    account.iam.attach_role_policy(RoleName="mlim-worker", PolicyArn=arn)
    try:
        (line,) = told(file)
    finally:
        account.iam.detach_role_policy(RoleName="mlim-worker", PolicyArn=arn)
    assert "the role mlim-worker has MyS3FullAccess" in line


def test_somebody_without_credentials_is_told_so(
    account: Account, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = account.file(project)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (line,) = told(file)
    assert line.startswith("error: credentials: AWS does not know who asks: Unable to locate credentials")
    assert "AWS_PROFILE" in line
