"""Trials of a study run by Ray Tune until its budget is used up."""

import logging
import os
from typing import Any

import ray
from ray import tune

from mlim_ray.config import SearchConfig, SearchRunConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.measures import Measurer
from mlim_ray.pipelines.ray_files import ray_storage
from mlim_ray.pipelines.resources import WorkerPlan, wait_for_resources
from mlim_ray.pipelines.search.group_trial import GROUP_TRIAL_RESOURCES, GroupTrial
from mlim_ray.pipelines.search.reaper import Reaper
from mlim_ray.pipelines.search.searcher import StudyAsha, StudySearch
from mlim_ray.pipelines.search.study import TrialStudy
from mlim_ray.pipelines.search.trial import PretrainTrial
from mlim_ray.pipelines.search.trial_faults import telling
from mlim_ray.pipelines.search.trial_job import TrialJob
from mlim_ray.pipelines.search.trial_words import NUMBER
from mlim_ray.pipelines.setting import Setting, ray_folder
from mlim_ray.training.build import model_config
from mlim_ray.training.run_folder import RunFolder


class SearchEnded(Exception):
    """A search cannot go on now, and can once its cause is seen to."""


def run_trials(
    folder: RunFolder,
    setting: Setting[SearchRunConfig],
    plan: WorkerPlan,
    study: TrialStudy,
    kind: str,
    resident: "ray.ObjectRef[Records] | None",
) -> None:
    """Run what is left of a study; it has all of it when this returns.

    Args:
        folder: of the search.
        setting: of the search.
        plan: what each trial gets, and how many run at a time.
        study: says which trials, and keeps what comes of them.
        kind: folder in the search's that the trials are kept in.
        resident: the decoded training split; None streams it.

    Raises:
        ValueError: what trials are ranked by cannot be measured on this set.
        SearchEnded: what lies outside of the trials ended it; the study keeps those that ran, to be taken up.
    """
    if study.is_complete:
        return
    config = setting.config
    if not study.stops_early:
        config = config.model_copy(update={"search": config.search.model_copy(update={"num_rungs": 1})})
    # Tune itself would wait for ever, and workers that a killed driver left may still write to their trials' folders.
    wait_for_resources(plan, streams=setting.streams)
    measurer = ray.put(_measurer(setting))
    job = TrialJob(config, setting.prepared, folder.anywhere, kind, plan.threads_per_worker, resident, measurer)
    run_study(study, config.search, plan, _trainable(job, plan), name=kind, folder=ray_folder(folder))


def run_study(
    study: TrialStudy,
    search: SearchConfig,
    plan: WorkerPlan,
    trainable: Any,
    *,
    name: str,
    folder: str,
) -> None:
    """Let Tune run what is left of a study.

    Args:
        study: says which trials, and keeps what comes of them.
        search: its rungs and budget.
        plan: how many run at a time.
        trainable: what a trial is, with what its process takes.
        name: of Tune's folder.
        folder: where Tune keeps that, local or in S3.

    Raises:
        SearchEnded: as `run_trials`.
    """
    if plan.growth is not None:
        # What Tune leaves to be started at a time, one else: nodes would come one after another, minutes apart.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.num_concurrent)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=-1,
            max_concurrent_trials=plan.num_concurrent,
            reuse_actors=True,
            search_alg=StudySearch(study, search.max_samples),
            scheduler=StudyAsha(study, search),
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            **ray_storage(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=search.num_retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[Reaper()],
        ),
    )
    # Of a trial that fails, Tune prints all that it knows; the search tells it in one line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tuner.fit()
    if study.stopped_by is not None:
        raise SearchEnded(study.stopped_by)


def _measurer(setting: Setting[SearchRunConfig]) -> Measurer:
    """What measures every trial; its records lie in shared memory as the training split does."""
    config, prepared = setting.config, setting.prepared
    return Measurer(prepared, config, config.search.objectives, model_config(config, prepared).num_cells)


def _trainable(job: TrialJob, plan: WorkerPlan) -> Any:
    """The class that Tune runs, with what a process of it takes."""
    if plan.num_workers > 1:
        group = tune.with_resources(
            tune.with_parameters(telling(GroupTrial), job=job, plan=plan), GROUP_TRIAL_RESOURCES
        )
        return _named(group, GroupTrial)
    return _named(with_plan(telling(PretrainTrial), plan, job=job), PretrainTrial)


def with_plan(trainable: type[tune.Trainable], plan: WorkerPlan, **parameters: Any) -> Any:
    """A class of trials of one worker, with what its process takes and what is handed to its `setup`."""
    resources = {"cpu": plan.cpus_per_worker, "gpu": plan.gpus_per_worker}
    return tune.with_resources(tune.with_parameters(trainable, **parameters), resources)


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config[NUMBER]:05d}"


def _named(trainable: type[Any], of: type[Any]) -> type[Any]:
    """The class under its own name, by which the dashboard lists its actors; Tune's wrappers have theirs there."""
    trainable.__name__ = trainable.__qualname__ = of.__name__
    return trainable
