"""Cluster files are valid for Ray and keep what its validator overlooks: money, versions, closed doors.

Each rule of the doctor has a file that breaks exactly it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="the cluster files are checked with Ray's own validator")

from mlim_ray.pipelines.doctor.arithmetic import Experiment  # noqa: E402
from mlim_ray.pipelines.doctor.examine import examine_file  # noqa: E402
from mlim_ray.pipelines.doctor.finding import Finding  # noqa: E402
from mlim_ray.pipelines.doctor.versions import pins  # noqa: E402
from tests.cluster.filled import CLUSTER_FILES, PROJECT, Config, filled_project, load, write  # noqa: E402

HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return filled_project(tmp_path, monkeypatch)


def findings(path: Path, experiment: Experiment | None = None) -> list[Finding]:
    """All that is wrong with a file, without asking anybody."""
    project = path.parents[1]
    return examine_file(path, project, experiment or Experiment(), offline=True).findings


@pytest.mark.parametrize("name", [path.name for path in CLUSTER_FILES])
def test_a_cluster_file_is_valid_and_safe_once_it_is_filled_in(name: str, project: Path) -> None:
    assert findings(project / "cluster" / name) == []


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=lambda path: path.name)
def test_nothing_but_placeholders_is_wrong_with_a_file_as_it_is_shipped(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_project(tmp_path, monkeypatch)
    found = findings(path)
    assert found and all(re.search("not filled in", finding.what) for finding in found), found
    names = {finding.where for finding in found}
    assert {"metadata.fill_in.storage"} <= names and len(found) <= 6


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=lambda path: path.name)
def test_a_cluster_file_holds_no_secret_and_no_account(path: Path) -> None:
    text = path.read_text(encoding="ascii")
    assert not re.search(r"\b\d{12}\b", text), "an account number"
    assert not re.search(r"AKIA|ASIA|aws_secret|PRIVATE KEY", text, re.IGNORECASE), "a key"


def test_the_pinned_ray_is_the_installed_one() -> None:
    assert pins(PROJECT)["ray"] == ray.__version__


def node(config: Config, name: str) -> Config:
    found: Config = config["available_node_types"][name]
    return found


def machine(config: Config, name: str) -> Config:
    found: Config = node(config, name)["node_config"]
    return found


def edit(key: str, old: str, new: str) -> Callable[[Config], object]:
    """Replace a part of the commands under a key."""

    def damage(config: Config) -> None:
        before = list(config[key])
        config[key] = [command.replace(old, new) for command in before]
        assert config[key] != before

    return damage


Damage = tuple[Callable[[Config], object], str]

# Each breaks one thing in a file; the second part is what the finding must say.
OF_GPU: dict[str, Damage] = {
    "more machines at least than at most": (
        lambda c: node(c, "gpu_1").update(min_workers=7, max_workers=2),
        "min_workers 7 is above max_workers 2",
    ),
    "a type with more than all": (lambda c: node(c, "gpu_1").update(max_workers=13), "is above the cluster's 12"),
    "a worker that never goes": (lambda c: node(c, "cpu").update(min_workers=1), "cost money while idle"),
    "machines that go between trials": (lambda c: c.update(idle_timeout_minutes=0), "between two trials"),
    "a spot head": (
        lambda c: machine(c, "head").update(InstanceMarketOptions={"MarketType": "spot"}),
        "head is a spot machine",
    ),
    "a head that takes work": (lambda c: node(c, "head")["resources"].update(CPU=8), "head takes work"),
    "a head of which nothing is said": (lambda c: node(c, "head")["resources"].pop("GPU"), "head takes work"),
    "a head with a GPU": (lambda c: machine(c, "head").update(InstanceType="g5.4xlarge"), "GPU that nothing uses"),
    "a head without drivers": (lambda c: node(c, "head")["resources"].pop("train_driver"), "no train_driver"),
    "GPU workers at full price": (lambda c: machine(c, "gpu_4").pop("InstanceMarketOptions"), "three times the spot"),
    "CPU workers that are lost": (
        lambda c: machine(c, "cpu").update(InstanceMarketOptions={"MarketType": "spot"}),
        "made again while GPUs wait",
    ),
    "more GPUs than the machine has": (
        lambda c: node(c, "gpu_1")["resources"].update(GPU=2),
        "offers 2 GPU, and g5.4xlarge has 1",
    ),
    "fewer GPUs than the machine has": (
        lambda c: node(c, "gpu_4")["resources"].update(GPU=3),
        "offers 3 GPU, and g5.12xlarge has 4",
    ),
    "more CPUs than the machine has": (
        lambda c: node(c, "cpu")["resources"].update(CPU=17),
        "offers 17 CPU, and m6i.4xlarge has 16",
    ),
    "a machine that offers nothing": (lambda c: node(c, "cpu").update(resources={}), "neither CPU nor GPU"),
    "a type that nobody knows": (lambda c: machine(c, "gpu_8").update(InstanceType="z9.huge"), "z9.huge is not known"),
    "spot machines without a watcher": (lambda c: c[WORKER].pop(), "watch-spot"),
    "a misspelt key": (
        lambda c: machine(c, "gpu_1").update(EbsOptimised=True),
        "EbsOptimised is no key of EC2; did you mean EbsOptimized?",
    ),
    "a misspelt key further in": (
        lambda c: machine(c, "cpu")["BlockDeviceMappings"][0]["Ebs"].update(VolumeSise=10),
        "VolumeSise in BlockDeviceMappings[0].Ebs is no key of EC2; did you mean VolumeSize?",
    ),
    "a value of the wrong kind": (
        lambda c: machine(c, "cpu")["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize="200 GB"),
        "EC2 would refuse it: Invalid type for parameter BlockDeviceMappings[0].Ebs.VolumeSize",
    ),
    "the old metadata service": (
        lambda c: machine(c, "cpu").update(MetadataOptions={"HttpTokens": "optional"}),
        "forged requests",
    ),
    "a plain disk": (
        lambda c: machine(c, "gpu_1")["BlockDeviceMappings"][0]["Ebs"].pop("Encrypted"),
        "a disk that is not encrypted",
    ),
    "Ray's own security group": (lambda c: machine(c, "gpu_1").pop("SecurityGroupIds"), "SSH open to the world"),
    "a security group for Ray to fill": (
        lambda c: c["provider"].update(security_group={"GroupName": "mlim"}),
        "Ray adds SSH from anywhere",
    ),
    "Ray's own image": (lambda c: machine(c, "cpu").pop("ImageId"), "Ubuntu 18.04"),
    "Ray's own role": (lambda c: machine(c, "head").pop("IamInstanceProfile"), "full access to EC2 and S3"),
    "workers without a role": (lambda c: machine(c, "gpu_8").pop("IamInstanceProfile"), "no access to S3"),
    "an open dashboard": (edit(HEAD, "127.0.0.1", "0.0.0.0"), "jobs API listen on 0.0.0.0"),
    "an open dashboard in two words": (
        edit(HEAD, "--dashboard-host=127.0.0.1", "--dashboard-host 10.0.0.1"),
        "jobs API listen on 10.0.0.1",
    ),
    "a head without the token": (edit(HEAD, "RAY_AUTH_MODE=token ", ""), f"{HEAD}: without the token"),
    "workers without the token": (edit(WORKER, "RAY_AUTH_MODE=token ray", "ray"), f"{WORKER}: without the token"),
    "workers that never start": (edit(WORKER, "ray start", "ray status"), "no `ray start`"),
    "no token file": (lambda c: c["file_mounts"].popitem(), "token's file goes to no node"),
    "a file that is not there": (
        lambda c: c["file_mounts"].update({"/home/ray/extra": "~/absent"}),
        "~/absent does not exist",
    ),
    "a secret": (
        lambda c: c["setup_commands"].append("export RAY_AUTH_TOKEN=0123456789abcdef"),
        "holds a secret",
    ),
    "a key of AWS": (lambda c: c["metadata"].update(key="AKIA" + "A1B2C3D4E5F6G7H8"), "holds a secret"),
    "authentication switched off": (
        lambda c: c["setup_commands"].append("export RAY_AUTH_MODE=disabled"),
        "RAY_AUTH_MODE=disabled",
    ),
    "a nightly build": (
        lambda c: c["setup_commands"].append("pip install -U https://s3.amazonaws.com/ray-wheels/latest/ray.whl"),
        "nightly build",
    ),
    "the newest boto3": (lambda c: c["head_setup_commands"].append("pip install boto3"), "without constraints.txt"),
    "the newest image": (lambda c: c["docker"].update(image="rayproject/ray:latest-gpu"), "says not exactly"),
    "an image of one's own that changes": (lambda c: c["docker"].update(image="shop/mlim"), "changes under its name"),
    "another Ray": (lambda c: c["docker"].update(image="rayproject/ray:2.59.0-py311"), "holds Ray 2.59.0"),
    "an old Python": (lambda c: c["docker"].update(image="rayproject/ray:2.60.0-py310"), "holds Python 3.10"),
    "another Python": (lambda c: c["docker"].update(image="rayproject/ray:2.60.0-py399"), "holds Python 3.99"),
    "another image for workers": (
        lambda c: c["docker"].update(worker_image=c["docker"]["image"].replace("-gpu", "")),
        "different images",
    ),
    "everything is sent": (lambda c: c.update(rsync_exclude=[]), "would be sent to every machine"),
    "something not filled in": (
        lambda c: c["metadata"]["fill_in"].update(storage="s3://REPLACE_ME_BUCKET/mlim"),
        "is not filled in",
    ),
}
OF_ONPREM: dict[str, Damage] = {
    "the head among the workers": (
        lambda c: c["provider"].update(worker_ips=[c["provider"]["head_ip"], "host-worker-2"]),
        "is the head as well",
    ),
    "a host twice": (lambda c: c["provider"].update(worker_ips=["one", "one"]), "names one twice"),
    "hosts that are left out": (lambda c: c.update(min_workers=1, max_workers=1), "leaves some of the 2 workers out"),
    "a head that takes work": (edit(HEAD, "--num-cpus=0", "--num-cpus=4"), "head takes work"),
    "a head without drivers": (edit(HEAD, "train_driver", "driver"), "no train_driver"),
    "a key that is not there": (lambda c: c["auth"].update(ssh_private_key="~/.ssh/absent"), "~/.ssh/absent does not"),
    "no settings of the storage": (
        lambda c: c["file_mounts"].update({"~/.mlim_storage": "~/absent"}),
        "~/absent does not exist",
    ),
    "workers without the token": (edit(WORKER, "RAY_AUTH_MODE=token ray", "ray"), "without the token"),
    "another Python": (edit("setup_commands", "python3.11", "python3.99"), "takes Python 3.99"),
}
OF_GCP: dict[str, Damage] = {
    "Ray's own subnet": (lambda c: machine(c, "cpu").pop("networkInterfaces"), "takes the first subnet"),
    "an image that changes": (
        lambda c: machine(c, "gpu_1")["disks"][0]["initializeParams"].update(
            sourceImage="projects/deeplearning-platform-release/global/images/family/common-cpu"
        ),
        "not named exactly",
    ),
    "a disk without an image": (lambda c: machine(c, "gpu_4").pop("disks"), "not named exactly"),
    "a spot head": (
        lambda c: machine(c, "head").update(scheduling={"provisioningModel": "SPOT"}),
        "head is a spot machine",
    ),
    "a head that may be taken": (
        lambda c: machine(c, "head").update(scheduling={"preemptible": True}),
        "head is a spot machine",
    ),
    "a head that takes work": (lambda c: node(c, "head")["resources"].update(CPU=8), "head takes work"),
    "a head without drivers": (lambda c: node(c, "head")["resources"].pop("train_driver"), "no train_driver"),
    "GPU workers at full price": (lambda c: machine(c, "gpu_4").pop("scheduling"), "three times the spot"),
    "more GPUs than the type has": (
        lambda c: node(c, "gpu_1")["resources"].update(GPU=2),
        "offers 2 GPU, and g2-standard-16 has 1",
    ),
    "a type with more GPUs": (
        lambda c: machine(c, "gpu_1").update(machineType="a2-highgpu-4g"),
        "offers 1 GPU, and a2-highgpu-4g has 4",
    ),
    "GPUs that are attached": (
        lambda c: machine(c, "cpu").update(guestAccelerators=[{"acceleratorCount": 2}]),
        "offers 0 GPU, and n2-standard-16 has 2",
    ),
    "workers without the token": (edit(WORKER, "RAY_AUTH_MODE=token ray", "ray"), "without the token"),
}
BROKEN = [("gpu.yaml", name, *damage) for name, damage in OF_GPU.items()]
BROKEN += [("onprem.yaml", name, *damage) for name, damage in OF_ONPREM.items()]
BROKEN += [("gcp.yaml", name, *damage) for name, damage in OF_GCP.items()]
MORE_THAN_ONE = {
    "more machines at least than at most",
    "workers that never start",
    "a machine that offers nothing",
}
"""what breaks two rules at once, however it is done"""


@pytest.mark.parametrize(
    ("file", "name", "damage", "expected"), BROKEN, ids=[f"{file}: {name}" for file, name, *_ in BROKEN]
)
def test_each_rule_is_broken_by_exactly_one_file(
    file: str, name: str, damage: Callable[[Config], object], expected: str, project: Path
) -> None:
    config = load(project / "cluster" / file)
    # An anchor is one dictionary at all its places; damage is meant for one.
    config = json.loads(json.dumps(config))
    damage(config)
    found = findings(write(project / "cluster" / "broken.yaml", config))
    assert [finding for finding in found if expected in finding.line], found
    assert len(found) == 1 or name in MORE_THAN_ONE, found
    assert all(finding.mend and "\n" not in finding.line for finding in found)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda c: c.update(idle_timeout_min=5), "idle_timeout_min"),
        (lambda c: c.update(max_workers=-1), "max_workers: Ray's schema refuses it: -1"),
        (lambda c: node(c, "cpu").update(resources={"CPU": 0.5}), "0.5 is not of type 'integer'"),
        (lambda c: c.update(head_node_type="gone"), "`head_node_type` must be one of"),
        (lambda c: node(c, "cpu").update(min_workers=20, max_workers=20), "smaller than the sum of `min_workers`"),
        (lambda c: c.pop("provider"), "provider"),
        (lambda c: c["provider"].update(type="cloudy"), "cloudy"),
    ],
)
def test_what_ray_refuses_is_one_line(damage: Callable[[Config], object], expected: str, project: Path) -> None:
    config = load(project / "cluster" / "gpu.yaml")
    damage(config)
    (finding,) = findings(write(project / "cluster" / "broken.yaml", config))
    assert finding.severity == "error" and expected in finding.line and "\n" not in finding.line


def test_a_token_that_others_may_read_is_found(project: Path) -> None:
    token = project.parent / "home" / ".ray" / "auth_token"
    token.chmod(0o644)
    (finding,) = findings(project / "cluster" / "gpu.yaml")
    assert "mode 0644" in finding.what and finding.mend == f"chmod 600 {token}"
    token.chmod(0o600)
    token.write_text("\n")
    assert [finding.what for finding in findings(project / "cluster" / "gpu.yaml")] == ["holds no token"]
    token.unlink()
    assert "cannot be read" in findings(project / "cluster" / "gpu.yaml")[0].what


def test_another_ray_in_the_constraints_is_found(project: Path) -> None:
    constraints = project / "constraints.txt"
    constraints.write_text(re.sub(r"^ray==.*", "ray==2.51.0", constraints.read_text(), flags=re.MULTILINE))
    told = [finding.what for finding in findings(project / "cluster" / "onprem.yaml")]
    assert told == ["pins Ray 2.51.0, which knows no token", f"has Ray {ray.__version__}, the cluster 2.51.0"]
    constraints.unlink()
    assert "no constraints.txt" in findings(project / "cluster" / "onprem.yaml")[0].what


Statement = dict[str, object]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::shop-models/mlim/*"}, "allows s3:*"),
        ({"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"}, "any role"),
        (
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::others/*"]},
            "s3:GetObject on arn:aws:s3:::others/*",
        ),
    ],
)
def test_a_policy_that_allows_too_much_is_found(change: Statement, expected: str, project: Path) -> None:
    path = project / "cluster" / "policy-worker.json"
    policy = json.loads(path.read_text())
    policy["Statement"].append(change)
    path.write_text(json.dumps(policy))
    (finding,) = findings(project / "cluster" / "gpu.yaml")
    assert finding.where == str(path) and expected in finding.what


def test_a_policy_that_allows_too_little_or_elsewhere_is_found(project: Path) -> None:
    path = project / "cluster" / "policy-head.json"
    text = path.read_text()
    path.write_text(text.replace('"s3:DeleteObject", ', ""))
    (finding,) = findings(project / "cluster" / "gpu.yaml")
    assert finding.what == "does not allow s3:DeleteObject on s3://shop-models/mlim"
    path.write_text(text.replace("shop-models/mlim/", "shop-models/other/"))
    assert len(findings(project / "cluster" / "gpu.yaml")) == 2
    path.write_text("{}")
    assert "is no policy" in findings(project / "cluster" / "gpu.yaml")[0].what
    path.write_text(text.replace("shop-models", "REPLACE_ME_BUCKET"))
    assert "not filled in" in findings(project / "cluster" / "gpu.yaml")[0].what


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        (Experiment(workers=39), "39 workers x 1 GPU = 39 GPU, and the cluster can grow to 38"),
        (Experiment(workers_per_trial=40), "40 workers x 1 GPU"),
    ],
)
def test_an_experiment_that_can_never_fit_is_found(experiment: Experiment, expected: str, project: Path) -> None:
    (finding,) = findings(project / "cluster" / "gpu.yaml", experiment)
    assert finding.severity == "error" and finding.where == "max_workers" and expected in finding.what
    assert findings(project / "cluster" / "gpu.yaml", Experiment(workers=38)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is no YAML"),
        ("- a", "given list"),
        ("apiVersion: ray.io/v1\nkind: RayCluster\n", "Kubernetes manifest"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_cluster_file_is_refused(text: str | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=expected):
        examine_file(path, tmp_path, Experiment(), offline=True)
