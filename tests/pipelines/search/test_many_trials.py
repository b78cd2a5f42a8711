"""A search of many trials, through the searcher, scheduler and study of a real one: nothing piles up."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray._private.state import actors
from ray.util import placement_group_table

from benchmarks.many_trials import After, run_toys, summary_of
from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.pipelines.search.study import SearchStudy

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("local_ray")]

NUM_TRIALS = 30


def living() -> tuple[set[str], set[str]]:
    """Placement groups and actors that are still there."""
    groups = {key for key, group in placement_group_table().items() if group["state"] != "REMOVED"}
    return groups, {key for key, actor in actors().items() if actor["State"] != "DEAD"}


def test_thirty_trials_leave_what_one_does(tmp_path: Path) -> None:
    groups, processes = living()
    rows = run_toys(str(tmp_path / "toys"), NUM_TRIALS, seconds=0.0, at_a_time=2)
    assert len(rows) == NUM_TRIALS

    early, late = rows[5:15], rows[-10:]
    for name in ("open_files", "placement_groups", "actors"):
        assert max(getattr(row, name) for row in late) <= max(getattr(row, name) for row in early), name
    left_groups, left_processes = living()
    assert left_groups <= groups and left_processes <= processes

    base = SearchRunConfig(train=TrainConfig(learning_rate=1e-3), search=SearchConfig(num_trials=NUM_TRIALS))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "toys" / "study.log")))
    study = SearchStudy(storage, base, lambda: None)
    assert study.is_complete
    states = [trial.state.name for trial in study.trials()]
    assert set(states) == {"COMPLETE", "PRUNED"} and states[:4] == ["COMPLETE"] * 4


def test_growth_is_told_from_none() -> None:
    steady = [After(float(number), 0.1 * number, 10**9, 9, 1, 2) for number in range(40)]
    growing = [After(float(number**2), 0.1 * number, 10**9 + 10_240 * number, 9, 1, 2) for number in range(40)]
    assert summary_of(steady)["seconds_ratio"] == 1.0
    assert summary_of(steady)["kib_a_trial"] == pytest.approx(0.0, abs=1e-6)
    assert summary_of(growing)["seconds_ratio"] > 2.0
    assert summary_of(growing)["kib_a_trial"] == pytest.approx(10.0)
