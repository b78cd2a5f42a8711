"""Pre-train once, on Ray Train, for any number of workers."""

import os
from typing import Any

from mlim_ray.config import PretrainConfig
from mlim_ray.config.files import config_text
from mlim_ray.evaluation.evaluation import Evaluation, paper_figures
from mlim_ray.evaluation.tasks import chosen_tasks
from mlim_ray.pipelines.cluster import LOCAL, Cluster
from mlim_ray.pipelines.evaluation_results import read_evaluations
from mlim_ray.pipelines.exhibits import PICTURES, write_model_card, write_pictures
from mlim_ray.pipelines.fit import fit
from mlim_ray.pipelines.in_run import InRunEvaluation, by_step
from mlim_ray.pipelines.joined import joined
from mlim_ray.pipelines.measure import Measured, gpu_options, make_yardstick, measure
from mlim_ray.pipelines.plan import check_run, describe_run
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.resources import WorkerPlan, plan_run
from mlim_ray.pipelines.setting import Setting, check_places, open_setting
from mlim_ray.pipelines.waiting import result_of
from mlim_ray.reporting.progress import Stage, say, table
from mlim_ray.reporting.run_page import render_run_page
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.init_from import has_begun, start_run
from mlim_ray.training.left_out import describe_left_out
from mlim_ray.training.metrics import read_metrics
from mlim_ray.training.run_folder import RunFolder, claim_folder

EXPERIMENT = "pretrain"


def pretrain(request: RunRequest[PretrainConfig]) -> dict[str, Any]:
    """Prepare, pre-train, measure, and write the run's page; gives the summary that `--json` prints.

    Raises:
        ValueError: the request cannot be met; nothing was started.
    """
    # Only the masking tells whether a loss that the best is kept by is ever logged.
    CheckpointPolicy.of(request.config)
    chosen_tasks(request.config.evaluate.tasks)
    if request.dry_run:
        return describe_run(request)
    check_run(request)
    folder = claim_folder(request.out, EXPERIMENT, resume=request.resume, overwrite=request.overwrite)
    if request.resume and folder.is_finished:
        say(f"{folder.path} is finished already; its page: {folder.file('report.html')}")
        return _summary(folder, folder.read_json("evaluation.json"))
    say(f"run folder: {folder.path}")
    resume = _resume_command(folder, request)

    def stopped() -> str:
        return f"stopped by SIGTERM; {_how_to_go_on(folder, resume)}"

    job = {
        "job_name": os.path.basename(folder.path),
        "run_folder": folder.anywhere,
        "data": request.data,
        "workers": str(request.num_workers),
    }
    with joined(request, folder, stopped, job) as cluster:
        evaluation = pretrain_within(cluster, folder, request, resume)
    _tell(folder, evaluation)
    return _summary(folder, evaluation)


def pretrain_within(
    cluster: Cluster, folder: RunFolder, request: RunRequest[PretrainConfig], resume: str
) -> Evaluation:
    """Prepare, pre-train, measure, and write the run's page, on a cluster that is joined: a part of an experiment.

    Args:
        cluster: where it runs.
        folder: the run's, claimed by who calls.
        request: its `dashboard` is not looked at.
        resume: what a person types to go on, for the messages.

    Raises what `pretrain` raises.
    """
    check_places(request.data, request.out, cluster)
    # What never fits is not prepared for.
    plan_run(cluster, request.num_workers, streams=False, min_workers=request.min_workers)
    setting = open_setting(request, cluster, folder, auto_feed="stream")
    plan = plan_run(cluster, request.num_workers, streams=setting.streams, min_workers=request.min_workers)
    _begin(folder, request, setting, plan)
    in_run = InRunEvaluation(folder, setting)
    seconds = fit(folder, setting, plan, resume, in_run.advance)
    return _measure(folder, setting, plan, cluster, seconds, in_run.finish())


def _begin(
    folder: RunFolder, request: RunRequest[PretrainConfig], setting: Setting[PretrainConfig], plan: WorkerPlan
) -> None:
    folder.write_text("config.yaml", config_text(setting.config))
    folder.write_json(
        "environment.json",
        setting.environment(request, num_workers=plan.num_workers, threads_per_worker=plan.threads_per_worker),
    )
    if setting.config.model.init_from is not None and not has_begun(folder):
        say(start_run(folder, setting.config, setting.prepared))


def _how_to_go_on(folder: RunFolder, resume: str) -> str:
    if folder.exists:
        return f"continue with: {resume}"
    return "training had not begun: give the same command again"


def _resume_command(folder: RunFolder, request: RunRequest[PretrainConfig]) -> str:
    """What a person types to go on; the run folder remembers all but where the run takes place."""
    most = str(request.num_workers)
    workers = most if request.min_workers is None else f"{request.min_workers}-{most}"
    where = f" --workers {workers}" if workers != "1" else ""
    if request.address != LOCAL:
        where += f" --address {request.address}"
    return f"python experiments/pretrain.py --out {folder.path} --resume{where}"


def _measure(
    folder: RunFolder,
    setting: Setting[PretrainConfig],
    plan: WorkerPlan,
    cluster: Cluster,
    seconds: float,
    earlier_steps: list[Evaluation],
) -> Evaluation:
    config, prepared = setting.config, setting.prepared
    threads = max(1, int(cluster.cpus_a_node))
    there = RunFolder(folder.anywhere)
    with Stage("measure", 1, "models") as stage:
        yardstick = make_yardstick.remote(config, prepared, threads)
        measured: Measured = result_of(
            measure.options(**gpu_options(plan.gpus_per_worker), name="measure model").remote(
                config, prepared, there.file("checkpoints"), yardstick, threads, there.file("model")
            )
        )
        stage.advance(1)
    metrics = read_metrics(folder.path)
    evaluation = {
        "steps": config.train.num_steps,
        "samples": setting.order.samples_at(config.train.num_steps),
        "seconds": seconds,
        "records_per_s": _rate(metrics),
        "size": config.model.size,
        **measured.evaluation,
    }
    if earlier_steps:
        evaluation["by_step"] = by_step([*earlier_steps, evaluation | {"step": config.train.num_steps}])
    # It may have been evaluated while it was trained.
    earlier = read_evaluations(folder)
    if earlier:
        evaluation["evaluations"] = earlier
    page = render_run_page(
        title=os.path.basename(folder.path),
        run=folder.path,
        config=config.model_dump(mode="json"),
        environment=folder.read_json("environment.json"),
        metrics=metrics,
        evaluation=evaluation,
        pictures=measured.pictures,
        cross_modal=measured.cross_modal,
    )
    folder.write_text("report.html", page)
    write_pictures(folder, measured)
    write_model_card(folder, config, prepared, evaluation)
    folder.write_json("evaluation.json", evaluation)
    return evaluation


def _tell(folder: RunFolder, evaluation: Evaluation) -> None:
    say("partner probe: loss by hidden ratio, with the true, another record's, and a blank partner")
    table([_probe_row(entry) for entry in evaluation["probe"]["at"]])
    if evaluation["linear_probe"] is not None:
        say("linear probe: accuracy of the label on frozen features, and of what needs no pre-training")
        table(_linear_rows(evaluation["linear_probe"]))
    left_out = describe_left_out(folder.path)
    if left_out is not None:
        say(left_out)
    say(f"page: {folder.file('report.html')}")
    say(f"model: {folder.file('model')}")
    say(f"pictures: {folder.file(PICTURES)}")
    say(f"next: python experiments/tune_mam.py --data {folder.read_json('environment.json')['data']}")


def _rate(metrics: list[dict[str, Any]]) -> float | None:
    """Records per second between the first and the last logged line of the last start, Ray's start left out."""
    begun = max((i for i, line in enumerate(metrics) if "time/samples_per_s" not in line), default=0)
    first, last = metrics[begun], metrics[-1]
    seconds = last["time/elapsed_s"] - first["time/elapsed_s"]
    return (last["samples"] - first["samples"]) / seconds if seconds > 0 else None


def _probe_row(entry: dict[str, Any]) -> dict[str, Any]:
    row = {"hidden": entry["hidden_ratio"]}
    for side in ("mlm", "recon"):
        row[side.upper()] = entry[f"{side}_paired"]
        for partner, name in (("shuffled", "other"), ("blank", "blank"), ("limit", "limit")):
            if entry[f"{side}_{partner}"] is not None:
                row[f"{side[0].upper()} {name}"] = entry[f"{side}_{partner}"]
    return row


def _linear_rows(linear: dict[str, Any]) -> list[dict[str, Any]]:
    base = linear["baselines"] or {}
    rows = [("this encoder", linear["picture_only"], linear["with_title"])]
    rows += [("untrained encoder", base.get("untrained"), base.get("untrained_with_title"))]
    rows += [(name.replace("_", " "), base.get(name), None) for name in ("raw_pixels", "pca", "majority")]
    rows += [("text only", None, base.get("text_only"))]
    return [{"features": name, "picture only": picture, "with title": title} for name, picture, title in rows]


def _summary(folder: RunFolder, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "out": folder.path,
        "steps": evaluation["steps"],
        "samples": evaluation["samples"],
        "seconds": evaluation["seconds"],
        "records_per_s": evaluation["records_per_s"],
        "report": folder.file("report.html"),
        "model": folder.file("model"),
        "probe": paper_figures(evaluation) | {"score": evaluation["probe"]["score"]},
        "linear_probe": evaluation["linear_probe"],
    }
