"""The main job: search masking, loss weight and learning rate, confirm the best, and say what may be claimed."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from optuna.trial import TrialState

from mlim_ray.config import SearchConfig, SearchRunConfig
from mlim_ray.config.files import config_text
from mlim_ray.data import storage
from mlim_ray.data.lease import Lease
from mlim_ray.pipelines.cluster import LOCAL, Cluster, connect
from mlim_ray.pipelines.feed import put_resident
from mlim_ray.pipelines.measure import make_yardstick
from mlim_ray.pipelines.plan import budget, check_search, describe_search
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.resources import WorkerPlan, plan_search
from mlim_ray.pipelines.search.conclusion import leader_of, measure_all, summary, tell, write_conclusion
from mlim_ray.pipelines.search.confirmation import arms_of, conclude
from mlim_ray.pipelines.search.database import open_database
from mlim_ray.pipelines.search.execute import SearchEnded, run_trials
from mlim_ray.pipelines.search.gauges import SetGauges
from mlim_ray.pipelines.search.importance import knob_importance
from mlim_ray.pipelines.search.interactions import knob_interactions
from mlim_ray.pipelines.search.live_page import LivePage
from mlim_ray.pipelines.search.mlflow_server import MlflowServer
from mlim_ray.pipelines.search.mlflow_watch import MlflowWatch
from mlim_ray.pipelines.search.results import ranked, trial_result
from mlim_ray.pipelines.search.search_watch import SearchWatch
from mlim_ray.pipelines.search.sole import only_search
from mlim_ray.pipelines.search.space import Parameters
from mlim_ray.pipelines.search.study import ConfirmationStudy, SearchStudy, TrialStudy, parameters_of, seed_of
from mlim_ray.pipelines.search.study_store import StudyStore, open_store
from mlim_ray.pipelines.search.trial_job import CONFIRMATION, TRIALS, trial_folder
from mlim_ray.pipelines.setting import Setting, check_places, open_setting
from mlim_ray.pipelines.signals import Stopped, Terminated, stopping
from mlim_ray.reporting.progress import say
from mlim_ray.training.init_from import has_begun, start_trials
from mlim_ray.training.run_folder import RunFolder, claim_folder

EXPERIMENT = "tune_mam"


def search(request: RunRequest[SearchRunConfig]) -> dict[str, Any]:
    """Prepare, search, measure every trial, and write the search's page; gives the summary that `--json` prints.

    Raises:
        ValueError: the request cannot be met; nothing was started.
    """
    if request.dry_run:
        return describe_search(request)
    check_search(request)
    database = request.config.search.storage
    if database is not None:
        open_database(database).engine.dispose()
    server = None if request.config.search.mlflow is None else MlflowServer(request.config.search.mlflow)
    folder = claim_folder(request.out, EXPERIMENT, resume=request.resume, overwrite=request.overwrite)
    if request.resume and folder.is_finished and not _asks_for_more(folder, request.config):
        say(f"{folder.path} is finished already; its page: {folder.file('report.html')}")
        return summary(folder, folder.read_json("evaluation.json"))
    say(f"run folder: {folder.path}")
    say(f"budget: {budget(request.config.search)}")
    if server is not None:
        say(f"MLflow: {server.page}")
    job = {
        "job_name": os.path.basename(folder.path),
        "run_folder": folder.anywhere,
        "data": request.data,
        "trials": str(request.config.search.num_trials),
    }
    # Ray takes SIGTERM over when it is joined.
    with (
        _resumable(folder, request),
        stopping(str, Terminated),
        Lease(folder.path),
        connect(request.address, dashboard=request.dashboard, job=job) as cluster,
        stopping(str, Terminated),
        only_search(folder.path, request.address),
    ):
        if cluster.dashboard_url is not None:
            say(cluster.dashboard_line)
        check_places(request.data, request.out, cluster)
        # What never fits is not prepared for.
        _plan(request.config.search, cluster, streams=False)
        setting = _for_budget(open_setting(request, cluster, folder, auto_feed="resident"))
        plan = _plan(setting.config.search, cluster, streams=setting.streams)
        for line in plan.lines(cluster):
            say(line)
        if folder.is_finished:
            # Until its new answer is there, a search that goes on is none that has ended: a kill must not leave both.
            storage.remove(folder.file("evaluation.json"))
        folder.write_text("config.yaml", config_text(setting.config))
        folder.write_json(
            "environment.json",
            setting.environment(request, num_workers=plan.num_workers, threads_per_worker=plan.threads_per_worker),
        )
        if setting.config.model.init_from is not None and not has_begun(folder):
            say(start_trials(folder, setting.config, setting.prepared))
        gauges = SetGauges(setting.prepared.manifest.counts.rejected)
        with contextlib.closing(gauges), open_store(folder, database) as store:
            told: contextlib.AbstractContextManager[MlflowWatch | None] = contextlib.nullcontext()
            if server is not None:
                told = MlflowWatch(server, folder, store.names.search, setting.config)
            with told as mlflow:
                return _run(folder, store, setting, plan, mlflow)


def _for_budget(setting: Setting[SearchRunConfig]) -> Setting[SearchRunConfig]:
    """The setting whose schedule ends where a full trial does."""
    config = setting.config
    train = config.train.model_copy(update={"num_steps": setting.order.steps_for(config.search.max_samples)})
    return setting.with_config(config.model_copy(update={"train": train}))


def _plan(search: SearchConfig, cluster: Cluster, *, streams: bool) -> WorkerPlan:
    return plan_search(
        cluster,
        max_concurrent=search.max_concurrent_trials,
        streams=streams,
        gpus_per_trial=search.gpus_per_trial,
        num_workers=search.workers_per_trial,
    )


def _asks_for_more(folder: RunFolder, config: SearchRunConfig) -> bool:
    """Whether a finished search is to run more trials, or to be confirmed after all or with more seeds."""
    before = folder.read_json("evaluation.json")
    if len(before["trials"]) < config.search.num_trials:
        return True
    num_seeds = 0 if before["confirmation"] is None else len(before["confirmation"]["seeds"])
    return config.search.confirm and num_seeds < config.search.num_confirm_seeds


def _run(
    folder: RunFolder,
    store: StudyStore,
    setting: Setting[SearchRunConfig],
    plan: WorkerPlan,
    mlflow: MlflowWatch | None,
) -> dict[str, Any]:
    """Run what is left of the search and of its confirmation, measure every model, and write the answer."""
    config, prepared = setting.config, setting.prepared
    yardstick = make_yardstick.remote(config, prepared, plan.threads_per_worker)
    resident = None if setting.streams else put_resident(prepared, skips_damaged=config.feed.skips_damaged)
    objectives = config.search.objectives

    def run(kind: str) -> None:
        watch.update(study.trials())
        run_trials(folder, setting, plan, study, kind, resident)

    def on_change() -> None:
        store.on_change()
        watch.update(study.trials())
        if mlflow is not None:
            mlflow.update(TRIALS if study is searched else CONFIRMATION, study.trials())
        page.update(searched.trials(), "searching" if study is searched else "confirming")

    page = LivePage(folder, config)
    study: TrialStudy
    study = searched = SearchStudy(store.storage, config, on_change, store.names.search)
    with SearchWatch(folder, config.search, TRIALS, study.num_trials) as watch:
        run(TRIALS)
    _drop_stopped(folder, searched)
    results = [trial_result(trial, objectives) for trial in searched.trials()]
    if not ranked(results):
        raise ValueError(
            f"no trial of {folder.path} came to its end with a finite score: "
            f"{'; '.join(sorted({result.reason for result in results if result.reason})) or 'all were stopped'}; start "
            "again with another --out"
        )
    confirmation = None
    arms = arms_of(results) if config.search.confirm else []
    if len(arms) > 1:
        study = confirmed = ConfirmationStudy(store.storage, config, arms, on_change, store.names.confirmation)
        with SearchWatch(folder, config.search, CONFIRMATION, study.num_trials) as watch:
            run(CONFIRMATION)
        runs = measure_all(folder, setting, plan, yardstick, _whole(confirmed), CONFIRMATION)
        evaluations = {number: entry.evaluation for number, entry in runs.items()}
        confirmation = conclude(arms, confirmed.seeds, confirmed.trials(), objectives, evaluations)
    leader = leader_of(results, confirmation).trial
    measured = measure_all(folder, setting, plan, yardstick, _whole(searched), TRIALS, export=leader)
    results = [
        trial_result(trial, objectives, measured[trial.number].evaluation if trial.number in measured else None)
        for trial in searched.trials()
    ]
    importance = knob_importance(searched.trials(), objectives)
    if importance is not None:
        importance["interactions"] = knob_interactions(searched.trials(), objectives)
    evaluation = write_conclusion(folder, setting, results, measured, confirmation, importance)
    if mlflow is not None:
        mlflow.conclude(evaluation)
    tell(folder, evaluation, results)
    return summary(folder, evaluation)


def _drop_stopped(folder: RunFolder, study: TrialStudy) -> None:
    """Remove the checkpoints of trials that were stopped: nothing reads them again, and a large model's take much."""
    for trial in study.trials():
        if trial.state == TrialState.PRUNED:
            storage.remove_tree(trial_folder(folder.path, TRIALS, trial.number).file("checkpoints"))


def _whole(study: TrialStudy) -> dict[int, tuple[Parameters, int]]:
    """Parameters and seed of the trials that saw the whole budget, by number."""
    whole = (trial for trial in study.trials() if trial.state == TrialState.COMPLETE)
    return {trial.number: (parameters_of(trial), seed_of(trial)) for trial in whole}


@contextlib.contextmanager
def _resumable(folder: RunFolder, request: RunRequest[SearchRunConfig]) -> Iterator[None]:
    """Say how to go on where a search is stopped, or has to stop."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; {_how_to_go_on(folder, request)}") from error
    except Terminated as error:
        raise Stopped(f"stopped by SIGTERM; {_how_to_go_on(folder, request)}") from error
    except SearchEnded as error:
        raise Stopped(f"{error}; see to that; {_how_to_go_on(folder, request)}") from error


def _how_to_go_on(folder: RunFolder, request: RunRequest[SearchRunConfig]) -> str:
    if not folder.exists:
        return "the search had not begun: give the same command again"
    where = "" if request.address == LOCAL else f" --address {request.address}"
    return (
        "finished trials are kept and unfinished ones continue from their last rung with: "
        f"python experiments/tune_mam.py --out {folder.path} --resume{where}"
    )
