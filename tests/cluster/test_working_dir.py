"""What `ray job submit --working-dir .` would send of the project: Ray's own packing, measured."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

packaging = pytest.importorskip("ray._private.runtime_env.packaging", reason="Ray's own packing is measured")

from tests.cluster.filled import PROJECT  # noqa: E402

MOST_BYTES = 8 << 20
"""packed; Ray refuses more than 512 MiB, and each node fetches it"""
AT_HOME = (".venv", "runs", ".git", "build", ".mypy_cache", "mlim_ray.egg-info", "mlim_ray/data/__pycache__")


def test_a_job_takes_the_project_and_neither_environment_nor_runs(tmp_path: Path) -> None:
    clone = tmp_path / "project"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    tracked = subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("the project's files are listed by git, and this is no clone")
    for name in filter(None, tracked.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, clone / name)
    for folder in AT_HOME:
        (clone / folder).mkdir(parents=True, exist_ok=True)
        (clone / folder / "left_at_home").write_bytes(bytes(1000))
    package = tmp_path / "package.zip"
    packaging.create_package(str(clone), package, include_gitignore=True, excludes=[])
    with zipfile.ZipFile(package) as packed:
        names = set(packed.namelist())
    assert {"experiments/tune_mam.py", "mlim_ray/__init__.py", "constraints.txt"} <= names
    assert not [name for name in names if "left_at_home" in name]
    assert package.stat().st_size < MOST_BYTES
