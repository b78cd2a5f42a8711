"""What each worker of a trial of several workers runs: the trial's rungs, for as long as one more is wanted."""

from dataclasses import dataclass
from typing import Any

import ray
import ray.train.torch

from mlim_ray.pipelines.search.trial_job import TrialJob
from mlim_ray.pipelines.search.trial_training import TrialTraining
from mlim_ray.pipelines.stop_flag import TrainControl
from mlim_ray.training.distributed import rank


@dataclass(frozen=True)
class GroupTask:
    """All that a worker is told."""

    job: TrialJob
    trial: dict[str, Any]
    """what Tune hands to the trial"""
    relay: Any
    """handle of the trial's `Relay`"""


def train_trial(settings: dict[str, Any]) -> None:
    """Train from the trial's newest checkpoint, rung by rung, until the trial is over.

    Workers that start again after a failure know nothing of it: the checkpoint and its history are all they need.
    """
    task: GroupTask = settings["task"]
    job, relay = task.job, task.relay
    records = None if job.resident is None else ray.get(job.resident)
    training = TrialTraining(job, task.trial, ray.train.torch.get_device(), records, ray.get(job.measurer))
    control = TrainControl(None, training.config.train.report_every_s)
    is_first = rank() == 0
    if is_first:
        ray.get(relay.add.remote(training.history))
    while ray.get(relay.is_wanted.remote(training.samples)):
        entry = training.next_rung(control)
        if is_first:
            ray.get(relay.add.remote([entry]))
    training.close()
