"""Trials that the memory cannot hold: tried again as often as asked, recorded with the reason; the rest goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.toy_trial import ToyTrial
from mlim_ray.config import SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.pipelines.resources import WorkerPlan
from mlim_ray.pipelines.search.execute import run_study, with_plan
from mlim_ray.pipelines.search.study import SearchStudy, reason_of, rungs_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

WORDS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.00 GiB"
MORE_THAN_ANY = 10**16
ALWAYS, ONCE = 5, 6
CONFIG = SearchRunConfig(
    train=TrainConfig(learning_rate=1e-3),
    search=SearchConfig(num_trials=8, max_samples=900, num_retries=2, stop_early=False),
)


class Greedy(ToyTrial):
    """Asks for more than there is: one trial of a GPU each time, one of the CPU the first time only."""

    def setup(self, config: dict[str, Any], tries: str, **parameters: Any) -> None:
        self._tries = Path(tries)
        super().setup(config, **parameters)

    def step(self) -> dict[str, Any]:
        if self._number in (ALWAYS, ONCE):
            note = self._tries / f"{self._number}"
            num_tries = len(note.read_text()) if note.exists() else 0
            note.write_text("x" * (num_tries + 1))
            if self._number == ALWAYS:
                raise torch.OutOfMemoryError(WORDS)
            if num_tries == 0:
                torch.empty(MORE_THAN_ANY)
        return super().step()


def test_it_is_recorded_and_the_search_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = SearchStudy(JournalStorage(JournalFileBackend(str(tmp_path / "study.log"))), CONFIG, lambda: None)
    plan = WorkerPlan(1, 1.0, 0.0, 1, 1)
    parameters = {"rungs": CONFIG.search.rungs, "seconds": 0.0, "tries": str(tmp_path)}
    trainable = with_plan(Greedy, plan, **parameters)
    run_study(study, CONFIG.search, plan, trainable, name="toys", folder=str(tmp_path))

    trials = study.trials()
    states = {trial.number: trial.state for trial in trials}
    assert states == dict.fromkeys(range(8), TrialState.COMPLETE) | {ALWAYS: TrialState.FAIL}
    reason = reason_of(trials[ALWAYS])
    assert reason is not None and reason.startswith("out of memory: ") and "\n" not in reason
    assert len((tmp_path / str(ALWAYS)).read_text()) == 1 + CONFIG.search.num_retries
    assert sorted(rungs_of(trials[ONCE])) == CONFIG.search.rungs
    said = capsys.readouterr().out
    assert said.count(f"trial {ALWAYS}: out of memory: ") == CONFIG.search.num_retries
    assert said.count(f"trial {ONCE}: out of memory: ") == 1
