"""What each Ray Train worker runs: the core's loop on this worker's share of the batches."""

from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.pipelines.feed import stream_batches
from mlim_ray.pipelines.stop_flag import TrainControl
from mlim_ray.reporting.event_files import EventFile
from mlim_ray.training.build import build_trainer, run_masking
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.checkpoint_writer import CheckpointWriter
from mlim_ray.training.distributed import rank, wait_for_all
from mlim_ray.training.init_from import lost_start
from mlim_ray.training.left_out import LeftOutLog
from mlim_ray.training.metrics import MetricsWriter
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.stream import ShardReader, resident_batches


@dataclass(frozen=True)
class WorkerJob:
    """All that a worker is told."""

    config: PretrainConfig
    prepared: PreparedSet
    run: str
    num_threads: int
    resident: "ray.ObjectRef[Records] | None"
    """the training split in shared memory; None streams it"""
    stop_flag: Any
    """the actor that says when to stop"""


def train_worker(settings: dict[str, Any]) -> None:
    """Train from the run's newest good checkpoint to its last step, or to where the driver asks to stop.

    The first worker writes metrics and checkpoints.

    Our own checkpoints are the truth: Ray's are neither written nor read (contract C7).
    """
    job: WorkerJob = settings["job"]
    torch.set_num_threads(job.num_threads)
    trainer = build_trainer(job.config, job.prepared, ray.train.torch.get_device(), job.run)
    train, order = job.config.train, trainer.order
    checkpoints = RunFolder(job.run).checkpoints(CheckpointPolicy.of(job.config))
    checkpoint = checkpoints.latest().checkpoint
    if checkpoint is not None:
        trainer.model.load_state_dict(checkpoint.weights)
        trainer.load_state(checkpoint.trainer_state)
    elif job.config.model.init_from is not None:
        raise ValueError(lost_start(job.run))
    # Nobody may forget an old checkpoint before all have read it.
    wait_for_all()

    context = ray.train.get_context()
    lanes = order.lanes_of(context.get_world_rank(), context.get_world_size())
    masking = run_masking(job.config, trainer.model.config)
    metrics = MetricsWriter(job.run, trainer.step) if rank() == 0 else None
    if rank() == 0:
        checkpoints.clean()
    writer = CheckpointWriter(checkpoints)
    left_out = LeftOutLog(job.run, job.prepared, trainer.step)

    def save() -> None:
        left_out.save(trainer.step)
        state = trainer.state()
        if metrics is not None and events is not None:
            metrics.flush()
            events.flush()
            score = checkpoints.policy.score_of(metrics.last_line)
            writer.submit(trainer.step, trainer.model.state_dict(), state, score)

    if trainer.step == train.num_steps:
        return
    events = EventFile(job.run, trainer.step) if rank() == 0 else None
    if job.resident is None:
        reader = ShardReader(job.prepared, order, masking, lanes, job.config.feed.skips_damaged)
        batches = stream_batches(reader, trainer.step, train.num_steps, left_out.add)
    else:
        records = ray.get(job.resident)
        batches = resident_batches(records, order, masking, lanes, trainer.step, train.num_steps, left_out.add)
    control = TrainControl(job.stop_flag, train.report_every_s)

    def report(line: dict[str, Any]) -> None:
        # Called on the first worker only, which has both.
        if metrics is not None and events is not None:
            metrics.write(line)
            events.write(line["step"], line)

    with writer:
        trainer.run(batches, train.num_steps, report=report, save=save, control=control)
    if events is not None:
        events.close()
