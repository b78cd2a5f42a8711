"""Trials of a study run by Ray Tune until its budget is used up."""

from typing import Any

import ray
from ray import tune

from mlim_ray.config import SearchRunConfig
from mlim_ray.data.records import Records
from mlim_ray.pipelines.ray_files import ray_storage
from mlim_ray.pipelines.resources import WorkerPlan
from mlim_ray.pipelines.search.searcher import NUMBER, StudyAsha, StudySearch
from mlim_ray.pipelines.search.study import TrialStudy
from mlim_ray.pipelines.search.trial import PretrainTrial, TrialJob
from mlim_ray.pipelines.search.trial_faults import telling
from mlim_ray.pipelines.setting import Setting, ray_folder
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
        SearchEnded: what lies outside of the trials ended it; the study keeps those that ran, to be taken up.
    """
    if study.is_complete:
        return
    config = setting.config
    if not study.stops_early:
        config = config.model_copy(update={"search": config.search.model_copy(update={"num_rungs": 1})})
    job = TrialJob(config, setting.prepared, folder.path, kind, plan.threads_per_worker, resident)
    resources = {"cpu": plan.cpus_per_worker, "gpu": plan.gpus_per_worker}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(telling(PretrainTrial), job=job), resources),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            max_concurrent_trials=plan.num_concurrent,
            reuse_actors=True,
            search_alg=StudySearch(study, config.search.max_samples),
            scheduler=StudyAsha(study, config.search),
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=kind,
            **ray_storage(ray_folder(folder)),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.search.num_retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()
    if study.stopped_by is not None:
        raise SearchEnded(study.stopped_by)


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config[NUMBER]:05d}"
