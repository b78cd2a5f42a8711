"""`ray up cluster/gpu.yaml` against EC2's API: a head, a search that brings workers up, and idle ones that go."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.system.closed_doors import check_closed_doors
from tests.system.conftest import Storage
from tests.system.hosts import ROOT, Host, Site, wait_until
from tests.system.region import IMAGE, Instance, Region, tags_of, type_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(1_800)]

ACCOUNT = "123456789012"
SEARCH = [
    *("--max-samples", "64", "--trials", "1", "--confirm", "false", "--model.size", "tiny"),
    *("--search.num-rungs", "1", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--no-dashboard", "--json"),
]
MORE_THAN_THERE_ARE = ["--search.workers-per-trial", "64", "--feed.num-lanes", "64", "--train.batch-size", "64"]


@dataclass
class OnAws:
    """The cluster, the laptop that it is started from, and the region that it runs in."""

    laptop: Host
    region: Region
    storage: Storage
    group: str

    def ray(self, command: str, timeout_s: float = 600.0) -> str:
        """A command of Ray's, typed in the clone of the project."""
        line = f"cd ~/project && RAY_AUTH_MODE=token ray {command}"
        return self.laptop.run("bash", "-c", line, timeout_s=timeout_s)

    @property
    def head(self) -> Instance:
        (head,) = self.region.instances("head")
        return head

    def submit(self, out: str, *flags: str) -> subprocess.Popen[str]:
        """Send a search to the cluster, through the dashboard that is brought to the laptop."""
        where = f"s3://{self.storage.bucket}/mlim/runs/{out}"
        search = (
            f"python experiments/tune_mam.py --data {self.storage.source} --out {where} {' '.join([*SEARCH, *flags])}"
        )
        address = "--address http://127.0.0.1:8265"
        line = f"cd ~/project && RAY_AUTH_MODE=token exec ray job submit {address} --working-dir . -- {search}"
        line += f" {' '.join([*SEARCH, *flags])}"
        return self.laptop.start("bash", "-c", line)


@pytest.fixture(scope="module")
def cluster(site: Site, laptop: Host, storage: Storage) -> Iterator[OnAws]:
    """Up, with no worker."""
    with Region(site, storage, laptop) as region:
        made = OnAws(laptop, region, storage, make_group(region))
        for role in ("head", "worker"):
            make_role(region, role, storage.bucket)
        laptop.put(
            "~/project/cluster/gpu.yaml", filled_in(laptop.run("cat", "project/cluster/gpu.yaml"), made), mode="644"
        )
        made.ray("up --yes --no-config-cache cluster/gpu.yaml")
        yield made


def filled_in(text: str, cluster: OnAws) -> str:
    """The file with its three values, and with what these hosts need otherwise than machines of AWS."""
    for placeholder, value in (
        ("sg-REPLACE_ME", cluster.group),
        ("ami-REPLACE_ME", IMAGE),
        ("REPLACE_ME_BUCKET", cluster.storage.bucket),
        # No Docker: the host itself is the container, whose user has another home.
        ("/home/ray/", "/home/ubuntu/"),
    ):
        assert placeholder in text
        text = text.replace(placeholder, value)
    config = yaml.safe_load(text)
    assert "REPLACE_ME" not in text
    del config["docker"]
    # Sooner than a person would want it.
    config["idle_timeout_minutes"] = 0.5
    for kind in ("cpu", "gpu_1"):
        # A worker's threads are as many as its node has; here all nodes share the machine's few cores.
        config["available_node_types"][kind]["resources"]["CPU"] = 2
    return yaml.safe_dump(config, sort_keys=False)


def make_group(region: Region) -> str:
    """The security group, as docs/cluster_aws.md makes it."""
    vpc = region.ask("ec2", "describe_vpcs")["Vpcs"][0]["VpcId"]
    made = region.ask("ec2", "create_security_group", GroupName="mlim", Description="mlim_ray", VpcId=vpc)
    group: str = made["GroupId"]
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    region.ask("ec2", "authorize_security_group_ingress", GroupId=group, IpPermissions=[members, ssh])
    return group


def make_role(region: Region, role: str, bucket: str) -> None:
    """A role and its profile, as docs/cluster_aws.md makes them of the project's files."""
    name, trust = f"mlim-{role}", (ROOT / "cluster" / "trust.json").read_text()
    rights = (ROOT / "cluster" / f"policy-{role}.json").read_text().replace("REPLACE_ME_BUCKET", bucket)
    region.ask("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=trust)
    region.ask("iam", "put_role_policy", RoleName=name, PolicyName="mlim", PolicyDocument=rights)
    region.ask("iam", "create_instance_profile", InstanceProfileName=name)
    region.ask("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name)


@pytest.fixture(scope="module")
def dashboard(cluster: OnAws) -> Iterator[None]:
    """What `ray dashboard` brings to the laptop."""
    forward = cluster.laptop.start("bash", "-c", "cd ~/project && exec ray dashboard cluster/gpu.yaml")
    answers = ["curl", "--silent", "--output", "/dev/null", "http://127.0.0.1:8265/api/version"]
    wait_until(lambda: cluster.laptop.attempt(*answers).returncode == 0, 120, "the dashboard through SSH")
    yield
    forward.kill()


def test_only_the_head_is_there_at_first(cluster: OnAws) -> None:
    assert [type_of(instance) for instance in cluster.region.instances()] == ["head"]


def test_an_unauthenticated_client_is_refused(cluster: OnAws) -> None:
    check_closed_doors(cluster.region.host_of(cluster.head), cluster.head["PrivateIpAddress"], cluster.laptop)


@pytest.mark.usefixtures("dashboard")
def test_a_search_that_never_fits_says_so_with_the_arithmetic(cluster: OnAws) -> None:
    begun = time.monotonic()
    job = cluster.submit("never", *MORE_THAN_THERE_ARE)
    said = job.communicate(timeout=600)[0]
    print(f"refused after {time.monotonic() - begun:.0f} s, the job's own start included")
    assert job.returncode != 0, said
    line = "64 workers x 1 GPU = 64 GPU, and the cluster can grow to 38; use --workers-per-trial 38"
    assert line in said.replace("\n", " "), said
    assert len(cluster.region.instances(up=False)) == 1, "no machine was asked for"


@pytest.mark.usefixtures("dashboard")
def test_a_search_brings_workers_up_and_idle_ones_go(cluster: OnAws) -> None:
    job = cluster.submit("first", "--train.batch-size", "8")
    begun = time.monotonic()

    def is_due() -> bool:
        return bool(cluster.region.instances("gpu_1")) or job.poll() is not None

    wait_until(is_due, 600, "a spot worker with a GPU")
    assert job.poll() is None, job.communicate()[0][-5000:]
    print(f"a spot worker asked for after {time.monotonic() - begun:.0f} s")
    (worker,) = cluster.region.instances("gpu_1")
    host = cluster.region.host_of(worker)

    def has_trial() -> bool:
        return bool(host.processes("ray::trial-")) or job.poll() is not None

    wait_until(has_trial, 600, f"a trial on {worker['InstanceId']}")
    print(f"a trial on it after {time.monotonic() - begun:.0f} s")
    said = job.communicate(timeout=600)[0]
    assert job.returncode == 0, said[-5000:]
    assert "search: 1 trials" in said and "0 failed" in said, said[-5000:]
    wait_until(lambda: len(cluster.region.instances()) == 1, 300, "idle workers gone")
    assert [type_of(instance) for instance in cluster.region.instances()] == ["head"]


def test_every_instance_was_closed_small_and_cheap(cluster: OnAws) -> None:
    """Of all that there ever were, as EC2 and IAM have them."""
    region = cluster.region
    assert {type_of(instance) for instance, _ in region.seen} >= {"head", "gpu_1"}
    assert len(region.seen) == len(region.instances(up=False))
    for instance, disks in region.seen:
        kind = type_of(instance)
        assert tags_of(instance)["ray-cluster-name"] == "mlim-gpu"
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [cluster.group]
        # CPU workers hold what GPUs wait for, so that they are on demand as the head is.
        assert (instance.get("InstanceLifecycle") == "spot") is (kind not in ("head", "cpu")), kind
        # Of several that are asked for at a time, moto gives the profile to the first alone.
        if instance["AmiLaunchIndex"] == 0:
            profile = instance["IamInstanceProfile"]["Arn"]
            assert profile == f"arn:aws:iam::{ACCOUNT}:instance-profile/mlim-{'head' if kind == 'head' else 'worker'}"
        assert disks and all(disk["Encrypted"] for disk in disks)
    for group in region.ask("ec2", "describe_security_groups")["SecurityGroups"]:
        ranges = [each["CidrIp"] for rule in group["IpPermissions"] for each in rule.get("IpRanges", [])]
        assert "0.0.0.0/0" not in ranges, group["GroupName"]
    check_rights(region)


def check_rights(region: Region) -> None:
    """The two roles are all that there are, and have nothing but the project's own two policies."""
    roles = [role["RoleName"] for role in region.ask("iam", "list_roles")["Roles"]]
    assert sorted(roles) == ["mlim-head", "mlim-worker"]
    for role in roles:
        assert region.ask("iam", "list_attached_role_policies", RoleName=role)["AttachedPolicies"] == []
        rights = region.ask("iam", "get_role_policy", RoleName=role, PolicyName="mlim")["PolicyDocument"]
        actions = [action for rule in rights["Statement"] for action in rule["Action"]]
        assert actions and not [action for action in actions if "*" in action], actions


def test_ray_down_leaves_nothing(cluster: OnAws) -> None:
    cluster.ray("down --yes cluster/gpu.yaml")
    wait_until(lambda: not cluster.region.instances(), 120, "no instance up")
    states = {instance["State"]["Name"] for instance in cluster.region.instances(up=False)}
    assert states == {"terminated"}
    wait_until(lambda: not cluster.region.hosts, 60, "no host left")
