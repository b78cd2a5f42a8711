"""One pre-training run in one process of the cluster, trained and measured: a cell of a comparison."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.files import config_text
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.evaluation.evaluation import Evaluation, evaluate
from mlim_ray.evaluation.overlap import Survey
from mlim_ray.evaluation.own_targets import own_targets
from mlim_ray.evaluation.plain import plain, plain_result
from mlim_ray.evaluation.prepared_bench import make_bench
from mlim_ray.evaluation.tasks import chosen_tasks
from mlim_ray.pipelines.feed import stream_batches
from mlim_ray.pipelines.measure import Yardstick
from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.build import build_trainer, run_masking
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.costs import step_costs
from mlim_ray.training.init_from import load_start_of_trials
from mlim_ray.training.left_out import LeftOutLog
from mlim_ray.training.loaded_run import load_run
from mlim_ray.training.metrics import MetricsWriter
from mlim_ray.training.process_state import begin_afresh
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.stream import ShardReader, resident_batches
from mlim_ray.training.trainer import Trainer
from mlim_ray.training.untrained import untrained_twin

_COUNTED = 64
"""held-out records that the costs of a step are counted on"""


@dataclass(frozen=True)
class CellSetting:
    """What all cells of one prepared set share."""

    prepared: PreparedSet
    environment: dict[str, Any]
    """content of their `environment.json`"""
    records: "ray.ObjectRef[Records] | None"
    """the training split in shared memory; None streams it"""
    yardstick: "ray.ObjectRef[Yardstick]"
    survey: "ray.ObjectRef[Survey] | None"
    """None where no tasks are asked for"""
    evaluate: EvaluateConfig
    """its tasks are what every model is measured by beside the probes"""
    num_threads: int
    folder: str
    """where the weights lie that all of them start from, if another run's"""


@ray.remote(max_retries=3)
def train_cell(config: PretrainConfig, setting: CellSetting, folder: str) -> Evaluation:
    """Train from the newest checkpoint in `folder` to the last step, and measure; gives the run's evaluation.

    The folder is a run's, but for what is drawn for a person: `mlim-ray compare`, `evaluate` and `diff` take it.
    """
    run = RunFolder(folder)
    begin_afresh(config.train.seed, setting.num_threads)
    run.write_text("config.yaml", config_text(config))
    run.write_json("environment.json", setting.environment)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = build_trainer(config, setting.prepared, device, run.path)
    started = time.perf_counter()
    first_step = _train(trainer, config, setting, run)
    seconds = time.perf_counter() - started
    samples = trainer.order.samples_at(config.train.num_steps)
    num_trained = samples - trainer.order.samples_at(first_step)
    yardstick = ray.get(setting.yardstick)
    evaluation: Evaluation = {
        "steps": config.train.num_steps,
        "samples": samples,
        "seconds": seconds,
        "samples_per_s": num_trained / seconds if num_trained else None,
        "size": config.model.size,
        **evaluate(trainer.model.eval(), yardstick.held_out, yardstick.limits, yardstick.baselines),
    }
    probe, masking = yardstick.held_out.probe, run_masking(config, trainer.model.config)
    evaluation["own_targets"] = plain(own_targets(trainer.losses, probe.records, probe.partner_B, masking))
    some = make_batch(probe.records.take(np.arange(min(_COUNTED, len(probe.partner_B)))), 0, masking.at(0))
    evaluation["costs"] = plain(step_costs(trainer.losses, some, config.train.seed))
    if setting.survey is not None:
        evaluation["evaluations"] = {setting.environment["data"]: _evaluated(setting, run.path, device)}
    return evaluation


def _train(trainer: Trainer, config: PretrainConfig, setting: CellSetting, run: RunFolder) -> int:
    """Gives the step that it began at."""
    checkpoints = run.checkpoints(CheckpointPolicy.of(config))
    checkpoint = checkpoints.latest().checkpoint
    if checkpoint is not None:
        trainer.model.load_state_dict(checkpoint.weights)
        trainer.load_state(checkpoint.trainer_state)
    elif config.model.init_from is not None:
        load_start_of_trials(trainer.model, RunFolder(setting.folder))
    first_step = trainer.step
    if first_step == config.train.num_steps:
        return first_step
    checkpoints.clean()
    metrics = MetricsWriter(run.path, trainer.step)
    left_out = LeftOutLog(run.path, setting.prepared, trainer.step)

    def save() -> None:
        left_out.save(trainer.step)
        state = trainer.state()
        metrics.flush()
        checkpoints.save(trainer.step, trainer.model.state_dict(), state)

    trainer.run(_batches(trainer, config, setting, left_out), config.train.num_steps, metrics.write, save)
    return first_step


def _batches(trainer: Trainer, config: PretrainConfig, setting: CellSetting, left_out: LeftOutLog) -> Iterator[Batch]:
    masking = run_masking(config, trainer.model.config)
    order, num_steps = trainer.order, config.train.num_steps
    lanes = range(order.num_lanes)
    if setting.records is None:
        reader = ShardReader(setting.prepared, order, masking, lanes, config.feed.skips_damaged)
        return stream_batches(reader, trainer.step, num_steps, left_out.add)
    return resident_batches(ray.get(setting.records), order, masking, lanes, trainer.step, num_steps, left_out.add)


def _evaluated(setting: CellSetting, run: str, device: torch.device) -> dict[str, Any]:
    """The tasks' results, as `evaluation.json` holds those of a source."""
    survey = ray.get(setting.survey)
    loaded = load_run(run)
    untrained = untrained_twin(run, loaded.model.config)
    bench = make_bench(
        loaded, untrained, setting.prepared, survey, setting.evaluate, device, lambda what, done, total: None
    )
    tasks = {
        task.name: {"asks": task.asks, **plain_result(task.run(bench, task.section(setting.evaluate)))}
        for task in chosen_tasks(setting.evaluate.tasks)
    }
    return {"prepared": setting.prepared.path, "overlap": plain_result(survey.overlap), "tasks": tasks}
