"""A cluster's YAML file as it is written, and as `ray up` completes it."""

import contextlib
import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from mlim_ray.pipelines.doctor.finding import Finding, error

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
Config = dict[str, Any]


@dataclass(frozen=True)
class ClusterFile:
    """A file that Ray's own validator accepts."""

    path: Path
    written: Config
    full: Config
    """with Ray's defaults filled in: `ray up` runs this"""
    project: Path
    """the folder that `ray up` is started in, which "." in the file means"""

    @property
    def kind(self) -> str:
        return str(self.full["provider"]["type"])

    @property
    def head(self) -> str:
        return str(self.full["head_node_type"])

    @property
    def node_types(self) -> dict[str, Config]:
        types: dict[str, Config] = self.full["available_node_types"]
        return types

    @property
    def worker_types(self) -> dict[str, Config]:
        return {name: node for name, node in self.node_types.items() if name != self.head}

    @property
    def max_workers(self) -> int:
        return int(self.full["max_workers"])

    @property
    def storage(self) -> str | None:
        """The place in S3 that the file names, without its placeholder."""
        place = (self.written.get("metadata") or {}).get("fill_in", {}).get("storage")
        return place if isinstance(place, str) and "REPLACE_ME" not in place else None

    def commands(self) -> Iterator[tuple[str, str]]:
        """All commands that run on a node, with the key they stand under."""
        for key in COMMANDS:
            for command in self.full.get(key) or []:
                yield key, command
        for name, node in self.node_types.items():
            for command in node.get("worker_setup_commands") or []:
                yield f"{name}.worker_setup_commands", command


def read_cluster_file(path: Path, project: Path) -> ClusterFile | Finding:
    """The file, or why Ray would refuse it.

    Raises:
        ValueError: there is no such file, or it is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: cannot be read ({type(problem).__name__}); name a cluster's YAML file") from problem
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ValueError(f"{path}: is no YAML: {' '.join(str(problem).split())}; mend that line") from problem
    if isinstance(written, dict) and "apiVersion" in written:
        raise ValueError(
            f"{path}: is a Kubernetes manifest, expected a file for `ray up`; "
            "ask `kubectl apply --dry-run=server -f` about it"
        )
    if not isinstance(written, dict):
        raise ValueError(f"{path}: given {type(written).__name__}, expected keys and values as in cluster/gpu.yaml")
    full = copy.deepcopy(written)
    try:
        # Ray tells on the screen what it raises as well.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            full = prepare_config(full)
            validate_config(full)
    except jsonschema.ValidationError as problem:
        where = ".".join(map(str, problem.absolute_path)) or str(path)
        return error(where, f"Ray's schema refuses it: {_short(problem.message)}", "write it as in cluster/gpu.yaml")
    except Exception as problem:
        # Whatever Ray raises about a file is about the file: it has no errors of its own for each.
        told = _short(str(problem)) or type(problem).__name__
        return error(str(path), f"Ray refuses it: {told}", "write it as in cluster/gpu.yaml")
    return ClusterFile(path, written, full, project)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:297]}..."
