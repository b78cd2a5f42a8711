"""The end of a search: every model measured, the answer, and the files that hold it."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.files import best_text
from mlim_ray.config.space import Interval
from mlim_ray.data import storage
from mlim_ray.evaluation.evaluation import paper_figures
from mlim_ray.pipelines.exhibits import write_model_card, write_pictures
from mlim_ray.pipelines.measure import Measured, Yardstick, gpu_options, measure
from mlim_ray.pipelines.resources import WorkerPlan
from mlim_ray.pipelines.search.results import TrialResult, ranked, table_bytes
from mlim_ray.pipelines.search.space import Parameters, trial_config
from mlim_ray.pipelines.search.trial_job import trial_folder
from mlim_ray.pipelines.search.trial_label import called
from mlim_ray.pipelines.search.trial_words import SAMPLES, SCORE
from mlim_ray.pipelines.setting import Setting
from mlim_ray.pipelines.waiting import wait_for_one
from mlim_ray.reporting.figures import Command
from mlim_ray.reporting.progress import Stage, say, table
from mlim_ray.reporting.search_figures import Phase, Search
from mlim_ray.reporting.search_page import render_search_page
from mlim_ray.reporting.verdict import judge
from mlim_ray.training.run_folder import RunFolder


def measure_all(
    folder: RunFolder,
    setting: Setting[SearchRunConfig],
    plan: WorkerPlan,
    yardstick: "ray.ObjectRef[Yardstick]",
    trials: Mapping[int, tuple[Parameters, int]],
    kind: str,
    export: int | None = None,
) -> dict[int, Measured]:
    """Measure the model of each trial once, as many at a time as trials ran.

    Args:
        trials: parameters and seed by number; those without a checkpoint are left out.
        kind: folder that the trials are kept in.
        export: number of the trial whose model is written to the search's `model/`.
    """
    options = {"num_cpus": plan.cpus_per_worker, **gpu_options(plan.gpus_per_worker)}
    waiting = {}
    for number, (parameters, seed) in trials.items():
        trial = trial_folder(folder.anywhere, kind, number)
        if trial.checkpoints().steps():
            task = measure.options(**options, name=f"measure {called(kind)} {number}").remote(
                trial_config(setting.config, parameters, seed),
                setting.prepared,
                trial.file("checkpoints"),
                yardstick,
                plan.threads_per_worker,
                folder.file("model") if number == export else None,
            )
            waiting[task] = number
    measured = {}
    with Stage("measure", len(waiting), "models") as stage:
        while waiting:
            done = wait_for_one(list(waiting))
            measured[waiting.pop(done)] = ray.get(done)
            stage.advance(len(measured))
    return measured


def write_conclusion(
    folder: RunFolder,
    setting: Setting[SearchRunConfig],
    results: Sequence[TrialResult],
    measured: Mapping[int, Measured],
    confirmation: dict[str, Any] | None,
    importance: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write the search's files, `evaluation.json` last, which is what this gives."""
    best = leader_of(results, confirmation)
    folder.write_text("best.yaml", best_text(trial_config(setting.config, best.params)))
    storage.write_bytes_atomically(folder.file("trials.parquet"), table_bytes(results))
    found = search_of(setting.config, results, confirmation=confirmation, importance=importance)
    sentences = judge(found).sentences
    page = render_search_page(
        title=os.path.basename(folder.path),
        folder=folder.path,
        config=setting.config.model_dump(mode="json"),
        environment=folder.read_json("environment.json"),
        search=found,
        pictures={number: entry.pictures for number, entry in measured.items()},
        best_yaml=storage.read_bytes(folder.file("best.yaml")).decode(),
        commands=commands(folder),
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
        "confirmation": confirmation,
        "importance": importance,
        "trials": [{**result.row(), "curve": result.curve} for result in results],
        **(best.evaluation or {}),
    }
    if best.trial in measured:
        write_pictures(folder, measured[best.trial])
        write_model_card(
            folder,
            trial_config(setting.config, best.params),
            setting.prepared,
            {
                **measured[best.trial].evaluation,
                "samples": best.samples,
                "steps": setting.order.steps_for(best.samples),
            },
        )
    folder.write_json("evaluation.json", evaluation)
    return evaluation


def search_of(
    config: SearchRunConfig,
    results: Sequence[TrialResult],
    *,
    confirmation: dict[str, Any] | None = None,
    importance: dict[str, Any] | None = None,
    phase: Phase = "finished",
) -> Search:
    """The search as its verdict and its page see it."""
    dimensions = config.dimensions
    return Search.of(
        [vars(result) for result in results],
        confirmation=confirmation,
        importance=importance,
        phase=phase,
        rungs=config.search.rungs,
        objectives=[objective.name for objective in config.search.objectives],
        num_trials=config.search.num_trials,
        log_knobs=[name for name, one in dimensions.items() if isinstance(one, Interval) and one.log],
    )


def leader_of(results: Sequence[TrialResult], confirmation: dict[str, Any] | None) -> TrialResult:
    """The trial that did best: of the confirmed ones if there are any."""
    whole = ranked(results)
    if confirmation is None:
        return whole[0]
    number = confirmation["arms"][0]["trial"]
    return next(result for result in whole if result.trial == number)


def next_command(folder: RunFolder) -> str:
    """What to run after a search."""
    data = folder.read_json("environment.json")["data"]
    return f"python experiments/pretrain.py --data {data} --config {folder.file('best.yaml')}"


def commands(folder: RunFolder) -> list[Command]:
    """What the page tells to run."""
    data = shlex.quote(str(folder.read_json("environment.json")["data"]))
    config = shlex.quote(folder.file("config.yaml"))
    return [
        Command("Train the best setting in full:", next_command(folder)),
        Command("Do the search again:", f"python experiments/tune_mam.py --data {data} --config {config}"),
        Command(
            "Go on with it, had it been stopped, or with more trials (--trials):",
            f"python experiments/tune_mam.py --out {shlex.quote(folder.path)} --resume",
        ),
    ]


def tell(folder: RunFolder, evaluation: dict[str, Any], results: Sequence[TrialResult]) -> None:
    """Print the table of trials, the answer, and what to do next."""
    whole = ranked(results)
    rest = [result for result in results if result not in whole]
    table([_row(result) for result in [*whole, *rest]])
    for sentence in evaluation["verdict"]:
        say(sentence)
    say(f"page: {folder.file('report.html')}")
    say(f"next: {next_command(folder)}")


def summary(folder: RunFolder, evaluation: dict[str, Any]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "out": folder.path,
        "steps": evaluation["steps"],
        "report": folder.file("report.html"),
        "probe": paper_figures(evaluation) | {"score": evaluation["probe"]["score"]},
        "linear_probe": evaluation["linear_probe"],
        "best": evaluation["best"],
        "confirmation": evaluation["confirmation"],
        "trials": evaluation["trials"],
    }


def _row(result: TrialResult) -> dict[str, Any]:
    role = result.role.replace("_", " ")
    row: dict[str, Any] = {
        "trial": result.trial,
        # A reference's name tells its policy, and a column of its own would cut the figures.
        "role": f"{role} {result.params['policy']}" if result.role == "searched" else role,
        SAMPLES: result.samples,
        SCORE: result.score,
    }
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
