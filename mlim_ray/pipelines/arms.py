"""Every masking setting with every seed on one prepared set, cell by cell inside one Ray."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from mlim_ray.config.compare import CompareRunConfig
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.files import config_text, parse_config
from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.evaluation import Evaluation
from mlim_ray.evaluation.examples import load_examples
from mlim_ray.evaluation.needs import Kinds
from mlim_ray.evaluation.overlap import survey
from mlim_ray.evaluation.tasks import chosen_tasks
from mlim_ray.pipelines.cells import run_cells
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.feed import put_resident
from mlim_ray.pipelines.measure import make_yardstick
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.resources import plan_search
from mlim_ray.pipelines.setting import Setting, open_setting
from mlim_ray.pipelines.train_cell import CellSetting, train_cell
from mlim_ray.reporting.progress import say
from mlim_ray.training.init_from import has_begun, start_trials
from mlim_ray.training.run_folder import RunFolder

Cells = dict[tuple[str, int], Evaluation]
"""by setting and seed"""


def run_arms(request: RunRequest[CompareRunConfig], folder: RunFolder, cluster: Cluster, name: str) -> Cells:
    """Train and measure what is not there yet; gives all evaluations.

    Args:
        request: its config says which settings, its `data` is a single source.
        folder: where the cells lie, each in the folder of a run.
        cluster: where they run.
        name: of the stage of progress.

    Raises:
        ValueError: the source, the config and the cluster do not fit together, or the set cannot serve a task.
    """
    if folder.exists:
        path = folder.file("config.yaml")
        stored = parse_config(storage.read_bytes(path), path, request.config)
        request = replace(request, config=stored)
    setting = open_setting(replace(request, resume=folder.exists), cluster, folder, auto_feed="resident")
    config, prepared = setting.config, setting.prepared
    evaluate = config.compare.evaluation
    _check_tasks(evaluate, prepared)
    plan = plan_search(cluster, max_concurrent=0, streams=setting.streams)
    for line in plan.lines(cluster):
        say(line.replace("trials", "cells"))
    environment = setting.environment(request, num_workers=1, threads_per_worker=plan.threads_per_worker)
    folder.write_text("config.yaml", config_text(config))
    folder.write_json("environment.json", environment)
    if config.model.init_from is not None and not has_begun(folder):
        say(start_trials(folder, config, prepared))
    files = {(arm, seed): _file(arm, seed) for seed in config.seeds for arm in config.compare.arms}
    if not all(storage.exists(folder.file(file)) for file in files.values()):
        there = RunFolder(folder.anywhere)
        shared = ray.put(_cell_setting(setting, evaluate, environment, plan.threads_per_worker, there))
        options = {"num_cpus": plan.cpus_per_worker, "num_gpus": plan.gpus_per_worker}
        starts = {
            file: partial(
                train_cell.options(**options, name=f"{arm}, seed {seed}").remote,
                config.cell(arm, seed),
                shared,
                there.file(file.rpartition("/")[0]),
            )
            for (arm, seed), file in files.items()
        }
        run_cells(folder, starts, name, "cells", at_once=plan.num_concurrent)
    return {cell: folder.read_json(file) for cell, file in files.items()}


def cell_folders(folder: RunFolder, config: CompareRunConfig) -> Sequence[str]:
    """The run folders of all cells."""
    return [folder.file(_file(arm, seed).rpartition("/")[0]) for seed in config.seeds for arm in config.compare.arms]


def _file(arm: str, seed: int) -> str:
    return f"cells/{arm}_seed-{seed}/evaluation.json"


def _cell_setting(
    setting: Setting[CompareRunConfig],
    evaluate: EvaluateConfig,
    environment: dict[str, Any],
    num_threads: int,
    folder: RunFolder,
) -> CellSetting:
    config, prepared = setting.config, setting.prepared
    return CellSetting(
        prepared,
        environment,
        None if setting.streams else put_resident(prepared, skips_damaged=config.feed.skips_damaged),
        make_yardstick.remote(config, prepared, num_threads),
        _survey.remote(prepared) if evaluate.tasks else None,
        evaluate,
        num_threads,
        folder.path,
    )


@ray.remote(num_cpus=0)
def _survey(prepared: PreparedSet) -> Any:
    return survey(prepared, prepared)


def _check_tasks(config: EvaluateConfig, prepared: PreparedSet) -> None:
    """Raise ValueError for a task that the set cannot serve, before hours are spent."""
    if not config.tasks:
        return
    prepared.require("train", "val", "test")
    train, test = (
        Kinds.of(load_examples(prepared, split, limit))
        for split, limit in (("train", config.num_train), ("test", config.num_test))
    )
    for task in chosen_tasks(config.tasks):
        reason = task.needs(task.section(config)).unmet(train, test)
        if reason is not None:
            raise ValueError(f"--tasks {task.name}: {reason}")
