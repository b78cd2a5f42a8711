"""The same Ray, Python and project on the head, on the workers and here, from one place."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from packaging.version import Version

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Finding, error, warning

FIRST_SAFE_RAY = "2.52.0"
"""before it there is no token, and a web page could run code on a developer's machine (CVE-2025-62593)"""
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Here:
    """What runs where `ray up` is typed."""

    ray: str
    python: tuple[int, int]

    @classmethod
    def now(cls) -> "Here":
        return cls(str(ray.__version__), (sys.version_info.major, sys.version_info.minor))


def pins(project: Path) -> dict[str, str]:
    """Exact versions by name, lower case, of a project's constraints.txt; empty where there is none."""
    path = project / "constraints.txt"
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def check_versions(cluster: ClusterFile, here: Here) -> Iterator[Finding]:
    """Images, set-up commands and this machine against constraints.txt."""
    pinned = pins(cluster.project).get("ray")
    if pinned is None:
        what = "has no constraints.txt, from which all versions come"
        yield error(str(cluster.project), what, "start in the root of the project")
        return
    if Version(pinned) < Version(FIRST_SAFE_RAY):
        what = f"pins Ray {pinned}, which knows no token"
        yield error("constraints.txt", what, f"take Ray {FIRST_SAFE_RAY} or newer")
    if here.ray != pinned:
        yield error("this machine", f"has Ray {here.ray}, the cluster {pinned}", "make setup")
    yield from _images(cluster, pinned, here)
    yield from _commands(cluster, here)


def _images(cluster: ClusterFile, pinned: str, here: Here) -> Iterator[Finding]:
    docker = cluster.full.get("docker") or {}
    images = [docker[key] for key in ("image", "head_image", "worker_image") if docker.get(key)]
    for node in cluster.node_types.values():
        images += [image for key, image in (node.get("docker") or {}).items() if key.endswith("image")]
    for image in dict.fromkeys(images):
        tag = image.rpartition("/")[2].partition(":")[2]
        found = re.fullmatch(r"(\d+\.\d+\.\d+)-py3(\d+)(-[a-z0-9]+)?", tag)
        if image.startswith("rayproject/ray") and found is None:
            what = f"{image} says not exactly which Ray and which Python it holds"
            yield error("docker", what, f"take rayproject/ray:{pinned}-py311-gpu")
        elif found is None and "@sha256:" not in image and tag in ("", "latest"):
            yield error("docker", f"{image} changes under its name", "name a tag of your own, or the digest")
        if found is None:
            continue
        python = (3, int(found[2]))
        if found[1] != pinned:
            yield error(
                "docker", f"{image} holds Ray {found[1]}, constraints.txt {pinned}", "name the image of that Ray"
            )
        if python < _OLDEST_PYTHON:
            yield error("docker", f"{image} holds Python {_dotted(python)}, 3.11 is needed", "take the py311 image")
        elif python != here.python:
            yield _other_python("docker", f"{image} holds", python, here)
    if len(set(images)) > 1:
        what = f"the head and the workers have different images, {' and '.join(sorted(set(images)))}"
        yield error("docker", what, "take one image for all")


def _commands(cluster: ClusterFile, here: Here) -> Iterator[Finding]:
    # Ray puts the common commands before those of the head and of the workers: each is told once.
    where: dict[str, str] = {}
    for key, command in cluster.commands():
        where.setdefault(command, key)
    for command, key in where.items():
        if re.search(r"ray-wheels|nightly|\.dev0", command):
            yield error(key, "installs a nightly build of Ray", "write the command as in cluster/gpu.yaml")
        elif re.search(r"\bpip3? install\b", command) and "-c constraints.txt" not in command:
            yield error(key, "pip installs without constraints.txt, so that nodes may differ", "add -c constraints.txt")
        named = re.search(r"\bPYTHON=\S*python3\.(\d+)", command)
        if named and (3, int(named[1])) != here.python:
            yield _other_python(key, "takes", (3, int(named[1])), here)


def _other_python(where: str, verb: str, python: tuple[int, int], here: Here) -> Finding:
    what = (
        f"{verb} Python {_dotted(python)}, and here is {_dotted(here.python)}: only jobs can be sent, no driver joins"
    )
    return warning(where, what, f"make setup PYTHON=python{_dotted(python)} after make clean")


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
