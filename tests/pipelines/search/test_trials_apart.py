"""A trial is what it would be alone, whatever ran before it in its process; and it copies none of the records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray._private.state import actors

from mlim_ray.data.prepared import PreparedSet
from mlim_ray.pipelines.resources import WorkerPlan
from mlim_ray.pipelines.search.execute import run_study, with_plan
from mlim_ray.pipelines.search.space import REFERENCES, Parameters
from mlim_ray.pipelines.search.study import SearchStudy, parameters_of, rungs_of
from mlim_ray.pipelines.search.trial import PretrainTrial
from mlim_ray.pipelines.search.trial_job import trial_folder
from tests.pipelines.search.trial_actor import TrialProcess, job_of, learned, small_config, small_set

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

# Dropout draws from torch's global generator, the one that a trial before may have left anywhere.
ONE: Parameters = {
    "policy": "mam",
    "mam.light_probability": 0.4,
    "mam.image_heavy_share": 0.5,
    "mam.image_heavy_ratio": 0.8,
    "mam.text_heavy_ratio": 0.7,
    "mam.image_light_ratio": 0.2,
    "mam.text_light_ratio": 0.1,
    "recon.weight": 5.0,
    "train.learning_rate": 1e-3,
    "model.dropout_ratio": 0.1,
}
OTHER: Parameters = {
    "policy": "alternating",
    "alternating.image_heavy_probability": 0.3,
    "alternating.image_heavy_ratio": 0.9,
    "alternating.text_heavy_ratio": 0.6,
    "recon.weight": 50.0,
    "recon.target": "masked",
    "train.learning_rate": 3e-3,
    "train.batch_size": 24,
}
DIVERGES: Parameters = {**OTHER, "train.learning_rate": 1e30}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> PreparedSet:
    return small_set(tmp_path_factory.mktemp("sets") / "set")


def process(search: Path, prepared: PreparedSet) -> Any:
    return TrialProcess.remote(job_of(search, prepared))


@pytest.fixture
def ended() -> Iterator[list[Any]]:
    """Processes that are ended after the test."""
    processes: list[Any] = []
    yield processes
    for each in processes:
        ray.kill(each)


def test_a_trial_does_not_depend_on_what_ran_before_it(prepared: PreparedSet, tmp_path: Path, ended: list[Any]) -> None:
    reused, fresh = process(tmp_path / "reused", prepared), process(tmp_path / "fresh", prepared)
    ended += [reused, fresh]
    first = ray.get(reused.run.remote(0, ONE))
    other = ray.get(reused.run.remote(1, OTHER))
    assert "NonFiniteError" in ray.get(reused.fail.remote(2, DIVERGES))
    blocked = Path(trial_folder(str(tmp_path / "reused"), "trials", 3).path)
    blocked.write_text("a file where the trial's folder is to be")
    assert "StorageError" in ray.get(reused.fail.remote(3, ONE))
    ray.get(reused.be_untidy.remote())
    again = ray.get(reused.run.remote(4, ONE))

    alone = ray.get(fresh.run.remote(0, ONE))
    assert len(alone.rungs) == 3
    assert first == alone
    assert again == alone
    assert other.weights != alone.weights and other.rungs != alone.rungs


def test_a_trial_leaves_nothing_behind(prepared: PreparedSet, tmp_path: Path, ended: list[Any]) -> None:
    reused = process(tmp_path / "reused", prepared)
    ended.append(reused)
    left = []
    for number in range(4):
        ray.get(reused.run.remote(number, ONE))
        left.append(ray.get(reused.left.remote()))
    assert (left[0].num_trainers, left[0].num_models) == (1, 1)
    assert left[1:] == left[:1] * 3


def test_a_trial_reads_records_where_they_lie(prepared: PreparedSet, tmp_path: Path, ended: list[Any]) -> None:
    reader = process(tmp_path / "reader", prepared)
    ended.append(reader)
    ray.get(reader.run.remote(0, ONE))
    found = ray.get(reader.whose_memory.remote())
    assert len(found) == 10
    for name, (mapped_from, is_writeable) in found.items():
        assert "plasma" in mapped_from and not is_writeable, (name, mapped_from, is_writeable)


def test_the_last_trial_of_a_search_is_what_it_is_alone(
    prepared: PreparedSet, tmp_path: Path, ended: list[Any]
) -> None:
    config = small_config(num_rungs=1)
    job = job_of(tmp_path / "search", prepared, config)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = SearchStudy(storage, config, lambda: None)
    before = set(actors())
    plan = WorkerPlan(1, 1.0, 0.0, job.num_threads, 1)
    trainable = with_plan(PretrainTrial, plan, job=job)
    run_study(study, config.search, plan, trainable, name="trials", folder=str(tmp_path / "ray"))
    new = [actor for actor_id, actor in actors().items() if actor_id not in before]
    assert len([actor for actor in new if "Trainable" in actor["ActorClassName"]]) == 1

    *_, last = study.trials()
    assert len(study.trials()) == config.search.num_trials > len(REFERENCES)
    searched = learned(job, last.number, list(rungs_of(last).items()))
    fresh = process(tmp_path / "fresh", prepared)
    ended.append(fresh)
    alone = ray.get(fresh.run.remote(0, parameters_of(last)))
    assert searched.weights == alone.weights and searched.lines == alone.lines
    assert searched.rungs[-1] == alone.rungs[-1]
