"""A cluster that runs, asked by the doctor; its dashboard, asked by somebody without the token."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="a running cluster is asked")

from mlim_ray.pipelines.doctor.running import NodeFacts, compare_nodes  # noqa: E402
from tests.pipelines.own_ray import OwnRay  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


def test_nodes_that_differ_are_named() -> None:
    usual = NodeFacts("2.60.0", "3.11.9", "0.1.0", None)
    assert list(compare_nodes({"a": usual, "b": usual})) == []
    old = NodeFacts("2.59.0", "3.12.1", "0.0.9", "s3://shop: access denied; give the role s3:PutObject")
    lines = [finding.line for finding in compare_nodes({"a": usual, "b": usual, "c": old})]
    assert len(lines) == 4 and all(line.startswith("error: c: ") for line in lines)
    for part in (
        "has Ray 2.59.0, the others 2.60.0",
        "Python 3.12.1",
        "mlim_ray 0.0.9",
        "access denied; give the role",
    ):
        assert any(part in line for line in lines), lines
    assert list(compare_nodes({})) == []


@pytest.mark.cluster
def test_a_running_cluster_is_asked(tmp_path: Path) -> None:
    """In processes of their own: Ray reads the token once in a process."""
    with OwnRay(dashboard=True) as own:
        done, told = doctor(own, tmp_path)
        assert (done.returncode, told["findings"]) == (0, []), done.stdout + done.stderr
        assert "cluster: 2 CPU, 0 GPU on 1 node(s)" in told["facts"]
        done, told = doctor(own, tmp_path, "--workers", "100")
        assert done.returncode == 1 and "100 workers" in done.stdout.splitlines()[0]


def doctor(own: OwnRay, folder: Path, *flags: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """What the command says of this cluster, and its JSON."""
    command = [sys.executable, "-m", "mlim_ray.command_line.main", "doctor", "--address", own.address, "--json", *flags]
    environment = dict(own.environment) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done, json.loads(done.stdout.splitlines()[-1])
