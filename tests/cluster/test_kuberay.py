"""The manifests for Kubernetes keep KubeRay's schema and our own rules; the image has the pinned versions."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable

import jsonschema
import pytest

from mlim_ray.pipelines.autoscaler import growth_here
from tests.cluster.filled import PROJECT, Config, load
from tests.cluster.kuberay_schema import RAY_CLUSTER, RAY_JOB

FOLDER = PROJECT / "cluster" / "kuberay"
DOCKERFILE = (PROJECT / "cluster" / "Dockerfile").read_text()


@pytest.fixture
def cluster() -> Config:
    return load(FOLDER / "raycluster.yaml")


def pinned_ray() -> str:
    return next(
        line.removeprefix("ray==")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    )


def test_the_manifests_keep_the_schema(cluster: Config) -> None:
    jsonschema.validate(cluster, RAY_CLUSTER)
    job = load(FOLDER / "rayjob.yaml")
    jsonschema.validate(job, RAY_JOB)
    assert job["spec"]["rayClusterSpec"] == cluster["spec"], "the job's cluster is the cluster"


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["spec"].update(enableInTreeAutoscaler=True),
        lambda c: c["spec"]["headGroupSpec"].pop("rayStartParams"),
        lambda c: c["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda c: c["spec"]["workerGroupSpecs"][0].update(minReplicas="0"),
        lambda c: c["spec"]["workerGroupSpecs"][1].pop("groupName"),
        lambda c: c["spec"]["autoscalerOptions"].update(upscalingMode="Fast"),
        lambda c: c["spec"]["authOptions"].update(mode="on"),
        lambda c: c.update(apiVersion="ray.io/v1alpha1"),
    ],
)
def test_a_broken_manifest_is_refused(damage: Callable[[Config], object], cluster: Config) -> None:
    broken = copy.deepcopy(cluster)
    damage(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, RAY_CLUSTER)


def test_the_cluster_is_closed_and_scales_from_nothing(cluster: Config) -> None:
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token"} and spec["enableInTreeAutoscaling"] is True
    head = spec["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    assert json.loads(json.loads(head["rayStartParams"]["resources"])) == {"train_driver": 1000}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"], group["groupName"]
    (gpus,) = [group for group in spec["workerGroupSpecs"] if "gpu" in group["groupName"]]
    assert gpus["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_search_counts_with_the_groups_that_there_are(cluster: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = cluster["spec"]
    (variable,) = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    monkeypatch.setenv(variable["name"], variable["value"])
    growth = growth_here("6379")
    assert growth is not None and growth.head.num_cpus == 0
    limits = {
        group["groupName"]: (group["template"]["spec"]["containers"][0]["resources"]["limits"], group["maxReplicas"])
        for group in spec["workerGroupSpecs"]
    }
    assert {kind.name: (kind.num_cpus, kind.num_gpus, kind.max_nodes) for kind in growth.workers} == {
        name: (float(limit["cpu"]), float(limit.get("nvidia.com/gpu", 0)), most)
        for name, (limit, most) in limits.items()
    }
    assert growth.max_workers == sum(most for _, most in limits.values())


def test_one_image_with_the_pinned_versions_for_all(cluster: Config) -> None:
    spec = cluster["spec"]
    templates = [group["template"] for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]]
    images = {container["image"] for template in templates for container in template["spec"]["containers"]}
    (image,) = images
    version = re.search(r'^version = "(.+)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert image.endswith(f"/mlim-ray:{version[1]}-ray{pinned_ray()}-py311")
    assert spec["rayVersion"] == pinned_ray()
    assert f"mlim-ray:{version[1]}-ray{pinned_ray()}-py311" in DOCKERFILE


def test_the_dockerfile_takes_the_pinned_ray_and_files_that_there_are() -> None:
    assert f"ARG RAY_IMAGE=rayproject/ray:{pinned_ray()}-py311-gpu\nFROM ${{RAY_IMAGE}}\n" in DOCKERFILE
    instructions = [line.split() for line in DOCKERFILE.splitlines() if line and not line.startswith(("#", " "))]
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER"}
    assert {words[0] for words in instructions} <= known
    copied = [name for words in instructions if words[0] == "COPY" for name in words[2:-1]]
    kept = (PROJECT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied and all((PROJECT / name).exists() and f"!{name}" in kept for name in copied), copied
    assert instructions[-1] == ["USER", "ray"] and ["ENV", "RAY_AUTH_MODE=token"] in instructions
    assert all("-c constraints.txt" in line for line in DOCKERFILE.splitlines() if "pip install" in line)
