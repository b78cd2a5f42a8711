"""A run's folder, and its model as a user loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlim_ray
from mlim_ray.inference import LoadedModel
from tests.exported_runs import write_exported_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedModel:
    return mlim_ray.load(run, device="cpu")
