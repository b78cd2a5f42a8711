"""A copy of the project's cluster files with everything filled in, and the home of somebody who is ready to start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
CLUSTER_FILES = sorted((PROJECT / "cluster").glob("*.yaml"))
BUCKET = "shop-models"
FILLED = {
    "REPLACE_ME_BUCKET": BUCKET,
    "sg-REPLACE_ME": "sg-0123456789abcdef0",
    "ami-REPLACE_ME": "ami-0123456789abcdef0",
}

Config = dict[str, Any]


def filled_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder: cluster/ and constraints.txt; the home below it has token, key and storage settings."""
    project, home = folder / "project", folder / "home"
    shutil.copytree(PROJECT / "cluster", project / "cluster")
    shutil.copy(PROJECT / "constraints.txt", project)
    for path in [*(project / "cluster").glob("*.yaml"), *(project / "cluster").glob("policy-*.json")]:
        text = path.read_text()
        for placeholder, value in FILLED.items():
            text = text.replace(placeholder, value)
        path.write_text(text.replace("REPLACE_ME", "host"))
    for name in (".ray/auth_token", ".ssh/mlim_onprem"):
        path = home / name
        path.parent.mkdir(parents=True)
        path.write_text("of-nobody\n")
        path.chmod(0o600)
    (home / ".mlim_storage").mkdir()
    monkeypatch.setenv("HOME", str(home))
    return project


def load(path: Path) -> Config:
    """A YAML file as it is written."""
    config: Config = yaml.safe_load(path.read_text(encoding="ascii"))
    return config


def write(path: Path, config: Config) -> Path:
    """A YAML file of these values."""
    path.write_text(yaml.safe_dump(config))
    return path
