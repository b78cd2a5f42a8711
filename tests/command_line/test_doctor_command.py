"""`mlim-ray doctor`: its lines, its JSON and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the doctor asks Ray's own validator")

from tests.cluster.filled import PROJECT, filled_project
from tests.command_line.exits import ended
from tests.command_line.test_main import refused


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = filled_project(tmp_path, monkeypatch)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return folder


def doctor(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str]]:
    """Exit code and lines of standard output."""
    return ended(capsys, "doctor", *argv)


def test_a_good_file_ends_with_0_and_its_arithmetic(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = doctor(capsys, "cluster/gpu.yaml", "--offline")
    assert code == 0 and lines[-1] == "cluster/gpu.yaml: nothing wrong was found"
    assert "with all machines: 672 CPU, 38 GPU (2 gpu_8 + 4 gpu_4 + 6 gpu_1)" in lines
    assert any("a search: 38 trials at a time x 1 x (0 CPU, 1 GPU" in line for line in lines)
    assert any(line.startswith("quota L-3819A6DF, All G and VT Spot") and "704" in line for line in lines)


def test_an_error_ends_with_1_and_a_warning_with_0(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "cluster" / "gpu.yaml"
    path.write_text(path.read_text().replace("idle_timeout_minutes: 5", "idle_timeout_minutes: 0"))
    code, lines = doctor(capsys, "cluster/gpu.yaml", "--offline", "--json")
    assert code == 0 and lines[0].startswith("warning: idle_timeout_minutes: ")
    assert json.loads(lines[-1])["warnings"] == 1 and lines[-2] == "cluster/gpu.yaml: 1 warning"
    path.write_text(path.read_text().replace("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"))
    code, lines = doctor(capsys, "cluster/gpu.yaml", "--offline", "--json")
    told = json.loads(lines[-1])
    assert code == 1 and lines[0].startswith("error: head_start_ray_commands: ")
    assert (told["errors"], told["warnings"], len(told["findings"])) == (1, 1, 2)
    assert doctor(capsys, "cluster/gpu.yaml", "--offline", "--workers", "100")[0] == 1


def test_the_machine_itself_is_looked_at(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    code, lines = doctor(capsys)
    assert code == 0 and lines[-1].startswith("this machine: ")
    assert any("a search: " in line for line in lines)
    code, lines = doctor(capsys, "--storage", "/tmp/here")
    assert code == 1 and lines[0].startswith("error: /tmp/here: is not in S3")


def test_what_cannot_be_looked_at_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "doctor", "absent.yaml").startswith("absent.yaml: cannot be read")
    assert refused(capsys, "doctor", "--offline").startswith("--offline: given without FILE")
    assert refused(capsys, "doctor", "cluster/gpu.yaml", "--workers", "0").startswith("--workers: given 0")
    assert refused(capsys, "doctor", "--gpus-per-trial", "2").startswith("--gpus-per-trial: given 2")
    assert refused(capsys, "doctor", "--address", "auto").startswith("--address: given 'auto'")
    assert refused(capsys, "doctor", "a.yaml", "--address", "127.0.0.1:1").startswith("FILE and --address")
