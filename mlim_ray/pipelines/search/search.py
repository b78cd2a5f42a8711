"""The main job: search masking, loss weight and learning rate, and name a winner."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.files import best_text, config_text
from mlim_ray.data import storage
from mlim_ray.data.lease import Lease
from mlim_ray.evaluation.evaluation import paper_figures
from mlim_ray.pipelines.cluster import Cluster, connect
from mlim_ray.pipelines.feed import put_resident
from mlim_ray.pipelines.measure import Measured, Yardstick, gpu_options, make_yardstick, measure
from mlim_ray.pipelines.plan import check_search, describe_search
from mlim_ray.pipelines.ray_files import ray_storage
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.resources import WorkerPlan, plan_search
from mlim_ray.pipelines.search.journal import SearchStudy, open_journal, sync_journal
from mlim_ray.pipelines.search.results import (
    TrialResult,
    table_bytes,
    trial_result,
    winner_of,
)
from mlim_ray.pipelines.search.searcher import NUMBER, SAMPLES, SCORE, JournalAsha, JournalSearch
from mlim_ray.pipelines.search.space import trial_config
from mlim_ray.pipelines.search.trial import PretrainTrial, TrialJob, trial_folder
from mlim_ray.pipelines.setting import Setting, check_places, open_setting, ray_folder
from mlim_ray.reporting.figures import Search
from mlim_ray.reporting.progress import Stage, say, table
from mlim_ray.reporting.search_page import render_search_page
from mlim_ray.reporting.verdict import judge
from mlim_ray.training.init_from import has_begun, start_trials
from mlim_ray.training.run_folder import RunFolder, claim_folder

EXPERIMENT = "tune_mam"
_MAX_TRIAL_FAILURES = 2


def search(request: RunRequest[SearchRunConfig]) -> dict[str, Any]:
    """Prepare, search, measure every trial, and write the search's page; gives the summary that `--json` prints.

    Raises:
        ValueError: the request cannot be met; nothing was started.
    """
    if request.dry_run:
        return describe_search(request)
    check_search(request)
    folder = claim_folder(request.out, EXPERIMENT, resume=request.resume, overwrite=request.overwrite)
    if request.resume and folder.is_finished:
        say(f"{folder.path} is finished already; its page: {folder.file('report.html')}")
        return _summary(folder, folder.read_json("evaluation.json"))
    say(f"run folder: {folder.path}")
    with Lease(folder.path), connect(request.address, dashboard=request.dashboard) as cluster:
        if cluster.dashboard_url is not None:
            say(cluster.dashboard_line)
        check_places(request.data, request.out, cluster)
        setting = _for_budget(open_setting(request, cluster, folder, auto_feed="resident"))
        plan = _plan(setting, cluster)
        folder.write_text("config.yaml", config_text(setting.config))
        folder.write_json(
            "environment.json",
            setting.environment(request, num_workers=1, threads_per_worker=plan.threads_per_worker),
        )
        if setting.config.model.init_from is not None and not has_begun(folder):
            say(start_trials(folder, setting.config, setting.prepared))
        with open_journal(folder) as journal, _resumable(folder):
            results, measured = _run(folder, journal, setting, plan)
            evaluation = _conclude(folder, setting, results, measured)
    _tell(folder, evaluation, results)
    return _summary(folder, evaluation)


def _for_budget(setting: Setting[SearchRunConfig]) -> Setting[SearchRunConfig]:
    """The setting whose schedule ends where a full trial does."""
    config = setting.config
    train = config.train.model_copy(update={"num_steps": setting.order.steps_for(config.search.max_samples)})
    return setting.with_config(config.model_copy(update={"train": train}))


def _plan(setting: Setting[SearchRunConfig], cluster: Cluster) -> WorkerPlan:
    return plan_search(cluster, max_concurrent=setting.config.search.max_concurrent_trials, streams=setting.streams)


def _run(
    folder: RunFolder, journal: str, setting: Setting[SearchRunConfig], plan: WorkerPlan
) -> tuple[list[TrialResult], dict[int, Measured]]:
    """Run what is left of the search, then measure every trial that has a checkpoint."""
    config, prepared = setting.config, setting.prepared
    yardstick = make_yardstick.remote(config, prepared, plan.threads_per_worker)
    with Stage("search", config.search.num_trials, "trials") as stage:
        learning_rate = config.train.learning_rate
        assert learning_rate != "auto", "configs are resolved before a search starts"

        def on_change() -> None:
            sync_journal(folder, journal)
            _show(stage, study)

        study = SearchStudy(
            journal,
            config.search,
            seed=config.train.seed,
            recon_weight=config.recon.weight,
            learning_rate=learning_rate,
            on_change=on_change,
        )
        if not study.is_complete:
            _fit(folder, setting, plan, study)
        _show(stage, study)
    trials = study.trials()
    winner = winner_of(trials)
    if winner is None:
        raise ValueError(
            f"no trial of {folder.path} came to its end with a finite score; look into {folder.file('.ray')} for the "
            "trials' errors, then start again with another --out"
        )
    measured = _measure_all(folder, setting, plan, yardstick, [trial.number for trial in trials], winner.number)
    results = [
        trial_result(trial, measured[trial.number].evaluation if trial.number in measured else None) for trial in trials
    ]
    return results, measured


def _fit(folder: RunFolder, setting: Setting[SearchRunConfig], plan: WorkerPlan, study: SearchStudy) -> None:
    search_config = setting.config.search
    skips_damaged = setting.config.feed.skips_damaged
    resident = None if setting.streams else put_resident(setting.prepared, skips_damaged=skips_damaged)
    job = TrialJob(setting.config, setting.prepared, folder.path, plan.threads_per_worker, resident)
    resources = {"cpu": plan.cpus_per_worker, "gpu": plan.gpus_per_worker}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(PretrainTrial, job=job), resources),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            max_concurrent_trials=plan.num_concurrent,
            reuse_actors=True,
            search_alg=JournalSearch(study, search_config.max_samples),
            scheduler=JournalAsha(study, search_config),
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            **ray_storage(ray_folder(folder)),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_MAX_TRIAL_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config[NUMBER]:05d}"


def _show(stage: Stage, study: SearchStudy) -> None:
    trials = study.trials()
    scores = [trial.value for trial in trials if trial.value is not None]
    running = len(study.unfinished())
    extra = {"best": min(scores)} if scores else {}
    stage.advance(len(trials) - running, running=running, **extra)


def _measure_all(
    folder: RunFolder,
    setting: Setting[SearchRunConfig],
    plan: WorkerPlan,
    yardstick: "ray.ObjectRef[Yardstick]",
    numbers: list[int],
    winner: int,
) -> dict[int, Measured]:
    """Measure each trial once, as many at a time as trials ran."""
    options = {"num_cpus": plan.cpus_per_worker, **gpu_options(plan.gpus_per_worker)}
    waiting = {}
    for number in numbers:
        trial = trial_folder(folder.path, number)
        if trial.checkpoints().steps():
            export_to = folder.file("model") if number == winner else None
            task = measure.options(**options).remote(
                setting.config,
                setting.prepared,
                trial.file("checkpoints"),
                yardstick,
                plan.threads_per_worker,
                export_to,
            )
            waiting[task] = number
    measured = {}
    with Stage("measure", len(waiting), "models") as stage:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            measured[waiting.pop(done)] = ray.get(done)
            stage.advance(len(measured))
    return measured


def _conclude(
    folder: RunFolder,
    setting: Setting[SearchRunConfig],
    results: list[TrialResult],
    measured: dict[int, Measured],
) -> dict[str, Any]:
    """Write the search's files, `evaluation.json` last."""
    complete = [result for result in results if result.state == "COMPLETE"]
    best = min(complete, key=lambda result: result.score or 0.0)
    best_config = trial_config(setting.config, best.params)
    folder.write_text("best.yaml", best_text(best_config))
    storage.write_bytes_atomically(folder.file("trials.parquet"), table_bytes(results))
    levels = setting.config.search.rungs
    sentences = judge(Search.of([vars(result) for result in results], best.trial, levels)).sentences
    page = render_search_page(
        title=os.path.basename(folder.path),
        search=folder.path,
        config=setting.config.model_dump(mode="json"),
        environment=folder.read_json("environment.json"),
        trials=[vars(result) for result in results],
        winner=best.trial,
        verdict=sentences,
        rungs=levels,
        pictures={number: entry.pictures for number, entry in measured.items()},
        best_yaml=storage.read_bytes(folder.file("best.yaml")).decode(),
        next_command=_next_command(folder),
    )
    folder.write_text("report.html", page)
    evaluation = {
        "steps": sum(setting.order.steps_for(result.samples) for result in results),
        "best": {
            "trial": best.trial,
            "role": best.role,
            SCORE: best.score,
            "config": folder.file("best.yaml"),
            "model": folder.file("model"),
            "params": best.params,
        },
        "verdict": sentences,
        "trials": [{**result.row(), "curve": result.curve} for result in results],
        **(best.evaluation or {}),
    }
    folder.write_json("evaluation.json", evaluation)
    return evaluation


@contextlib.contextmanager
def _resumable(folder: RunFolder) -> Iterator[None]:
    """Say how to go on when a person stops the search."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            "stopped; finished trials are kept and unfinished ones continue from their last rung with: "
            f"python experiments/tune_mam.py --out {folder.path} --resume"
        ) from error


def _next_command(folder: RunFolder) -> str:
    data = folder.read_json("environment.json")["data"]
    return f"python experiments/pretrain.py --data {data} --config {folder.file('best.yaml')}"


def _tell(folder: RunFolder, evaluation: dict[str, Any], results: list[TrialResult]) -> None:
    table([_row(result) for result in sorted(results, key=_rank)])
    for sentence in evaluation["verdict"]:
        say(sentence)
    say(f"page: {folder.file('report.html')}")
    say(f"next: {_next_command(folder)}")


def _rank(result: TrialResult) -> tuple[bool, float]:
    return result.state != "COMPLETE", result.score if result.score is not None else float("inf")


def _row(result: TrialResult) -> dict[str, Any]:
    row = {"trial": result.trial, "role": result.role.replace("_", " "), SAMPLES: result.samples, SCORE: result.score}
    if result.evaluation is not None:
        figures = paper_figures(result.evaluation)
        row |= {
            "MLM": figures["mlm_paired"],
            "shuffled": figures["mlm_shuffled"],
            "RECON": figures["recon_paired"],
        }
        linear = result.evaluation["linear_probe"]
        if linear is not None:
            row |= {"picture": linear["picture_only"], "+ title": linear["with_title"]}
    return row


def _summary(folder: RunFolder, evaluation: dict[str, Any]) -> dict[str, Any]:
    return {
        "out": folder.path,
        "steps": evaluation["steps"],
        "report": folder.file("report.html"),
        "probe": paper_figures(evaluation) | {"score": evaluation["probe"]["score"]},
        "linear_probe": evaluation["linear_probe"],
        "best": evaluation["best"],
        "trials": evaluation["trials"],
    }
