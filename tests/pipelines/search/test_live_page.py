"""The page of a search under way: written as trials move on, and not for ever."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.pipelines.search.live_page import LivePage
from mlim_ray.pipelines.search.study import SearchStudy
from mlim_ray.training.run_folder import RunFolder

CONFIG = SearchRunConfig(search=SearchConfig(num_trials=12, max_samples=100), train=TrainConfig(learning_rate=1e-3))


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(str(tmp_path))
    folder.write_json("environment.json", {"data": "generated:800"})
    return folder


def shown(folder: RunFolder) -> str:
    return Path(folder.file("report.html")).read_text()


def test_the_page_follows_the_trials_from_the_first_one_on(folder: RunFolder) -> None:
    clock = Clock()
    page = LivePage(folder, CONFIG, clock=clock)
    study = SearchStudy(optuna.storages.InMemoryStorage(), CONFIG, lambda: page.update(study.trials(), "searching"))
    page.update(study.trials(), "searching")
    assert "0 of 12 trials ended, 0 running, 12 to come" in shown(folder)
    measures = {"probe": 0.5, "mlm": 0.6, "recon": 0.4}
    for number in range(10):
        clock.now += 60.0
        assert study.begin() is not None
        study.report(number, 11, measures)
        assert f"{number} of 12 trials ended, 1 running" in shown(folder)
        study.report(number, 100, measures)
        study.finish(number, TrialState.FAIL if number == 4 else TrialState.COMPLETE, "lost" if number == 4 else None)
    clock.now += 60.0
    page.update(study.trials(), "searching")
    assert "10 of 12 trials ended, 0 running, 2 to come" in shown(folder)
    assert 'http-equiv="refresh"' in shown(folder) and "lost" in shown(folder)


def test_a_page_is_not_written_again_at_once_but_for_another_phase(folder: RunFolder) -> None:
    clock = Clock()
    page = LivePage(folder, CONFIG, clock=clock)
    study = SearchStudy(optuna.storages.InMemoryStorage(), CONFIG, lambda: None)
    page.update(study.trials(), "searching")
    study.begin()
    clock.now = 1.0
    page.update(study.trials(), "searching")
    assert "0 of 12 trials ended, 0 running" in shown(folder)
    clock.now = 6.0
    page.update(study.trials(), "searching")
    assert "0 of 12 trials ended, 1 running" in shown(folder)
    page.update(study.trials(), "confirming")
    assert "run again with fresh seeds" in shown(folder)


def test_a_page_that_took_long_is_written_seldom(folder: RunFolder) -> None:
    class Slow(Clock):
        def __call__(self) -> float:
            self.now += 1.0
            return self.now

    clock = Slow()
    page = LivePage(folder, CONFIG, clock=clock)
    study = SearchStudy(optuna.storages.InMemoryStorage(), CONFIG, lambda: None)
    page.update(study.trials(), "searching")
    study.begin()
    # One second of writing is worth fifty of searching.
    for _ in range(40):
        page.update(study.trials(), "searching")
    assert "0 of 12 trials ended, 0 running" in shown(folder)
    for _ in range(15):
        page.update(study.trials(), "searching")
    assert "0 of 12 trials ended, 1 running" in shown(folder)
