"""What every test may use, and in which order files of tests are run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# The same examples on every run and no limit on one example's time: a busy machine must not make a test fail.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

LONGEST = (
    ("pipelines/test_search.py", "pipelines/test_search_storage.py", "pipelines/test_search_faults.py"),
    ("pipelines/test_faults_workers.py", "pipelines/test_faults_stops.py"),
    ("pipelines/test_modality_dropout.py",),
    ("pipelines/test_in_run.py",),
    ("pipelines/test_pretrain.py",),
    ("pipelines/test_init_from.py",),
    ("pipelines/test_faults_nodes.py",),
    ("pipelines/test_model_kills.py",),
    ("pipelines/test_s3_runs.py",),
    ("pipelines/test_damaged_runs.py",),
    ("pipelines/test_s3_cache.py",),
    ("benchmarks/test_step_benchmarks.py",),
)
"""Files that take minutes; those of one line share a run, so they stay together.

They come first: where two files run at a time, the last ones to begin should be short.
"""
_PLACES = {name: place for place, names in enumerate(LONGEST) for name in names}


def _place(file: Path) -> int:
    return _PLACES.get(f"{file.parent.name}/{file.name}", len(LONGEST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and those that share something next to each other."""
    items.sort(key=lambda item: _place(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand out whole files, in the order that they were collected in."""
    from xdist.scheduler import LoadFileScheduling

    class _Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            place = _place(Path(file))
            return LONGEST[place][0] if place < len(LONGEST) else file

    config.option.loadscopereorder = False
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not here: no folder ../shared/data beside the project")
    return folder
