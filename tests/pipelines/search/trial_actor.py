"""Trials of a search run by hand, in processes of their own."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray
import torch

from mlim_ray.config import (
    ModelConfig,
    PrepareConfig,
    ProbeConfig,
    SearchConfig,
    SearchRunConfig,
    TrainConfig,
)
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.evaluation.measures import Measurer
from mlim_ray.model import MlimModel
from mlim_ray.pipelines.feed import put_resident
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.pipelines.search.space import Parameters
from mlim_ray.pipelines.search.trial import PretrainTrial
from mlim_ray.pipelines.search.trial_job import TRIALS, TrialJob, trial_folder
from mlim_ray.pipelines.search.trial_words import NUMBER, PARAMETERS, REPORTED, ROLE, SAMPLES, SEED, measures_in
from mlim_ray.training.metrics import OF_THE_MACHINE, read_metrics
from mlim_ray.training.resolve import resolve_size
from mlim_ray.training.trainer import Trainer

MAX_SAMPLES = 180
NUM_THREADS = 1


def small_set(folder: Path, num_records: int = 160) -> PreparedSet:
    """A generated set for the model tiny; Ray is running."""
    prepare(f"generated:{num_records}", str(folder), resolve_prepare_config(PrepareConfig(), 32))
    return PreparedSet.open(str(folder))


def small_config(**search: Any) -> SearchRunConfig:
    """A search whose trials take a dozen steps, to three rungs."""
    given: dict[str, Any] = {"max_samples": MAX_SAMPLES, "num_trials": 6, "confirm": False} | search
    config = SearchRunConfig(
        model=ModelConfig(size="tiny"),
        probe=ProbeConfig(num_records=12, linear_train_records=20),
        train=TrainConfig(batch_size=16, log_every_steps=3, peak_flops=1e12, seed=3),
        search=SearchConfig(**given),
    )
    return resolve_size(config, has_gpu=False)


def job_of(search: Path, prepared: PreparedSet, config: SearchRunConfig | None = None) -> TrialJob:
    """What the trials of a search in that folder share."""
    config = small_config() if config is None else config
    measurer = Measurer(prepared, config, config.search.objectives, 16)
    return TrialJob(config, prepared, str(search), TRIALS, NUM_THREADS, put_resident(prepared), ray.put(measurer))


class Learned(NamedTuple):
    """All that a trial leaves but what depends on the machine."""

    rungs: list[tuple[int, dict[str, float]]]
    weights: str
    """digest"""
    optimiser: str
    """digest"""
    lines: list[dict[str, Any]]


class Left(NamedTuple):
    """What a process holds between two calls."""

    num_trainers: int
    num_models: int
    num_tensors: int
    num_threads: int
    num_hooks: int


@ray.remote(num_cpus=0.5)
class TrialProcess:
    """A process that runs trials one after the other, as Tune's does."""

    def __init__(self, job: TrialJob) -> None:
        self._job = job
        self._trial: PretrainTrial | None = None

    def run(self, number: int, parameters: Parameters) -> Learned:
        """Run a trial to its end."""
        self._begin(number, parameters)
        assert self._trial is not None
        rungs = []
        while True:
            result = self._trial.step()
            rungs.append((result[SAMPLES], measures_in(result)))
            if result["done"]:
                return learned(self._job, number, rungs)

    def fail(self, number: int, parameters: Parameters) -> str:
        """Run a trial that fails; gives what it failed with."""
        try:
            self.run(number, parameters)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError("the trial came to its end")

    def be_untidy(self) -> None:
        """Do to the process what a library may do to it."""
        random.random(), np.random.rand(3), torch.rand(5)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)

    def left(self) -> Left:
        """Count what is still there of all trials so far."""
        gc.collect()
        objects = gc.get_objects()
        modules = [each for each in objects if isinstance(each, torch.nn.Module)]
        return Left(
            sum(isinstance(each, Trainer) for each in objects),
            sum(isinstance(each, MlimModel) for each in objects),
            sum(isinstance(each, torch.Tensor) for each in objects),
            threading.active_count(),
            sum(len(module._forward_hooks) + len(module._backward_hooks) for module in modules),
        )

    def whose_memory(self) -> dict[str, tuple[str, bool]]:
        """Where each array of records lies that the trial reads, and whether it may be written to."""
        assert self._trial is not None
        probe = self._trial._measurer._probe.records
        arrays = {f"train {name}": array for name, array in self._trial._records._asdict().items()}
        arrays |= {f"probe {name}": array for name, array in probe._asdict().items()}
        return {name: (_mapping_of(array), bool(array.flags.writeable)) for name, array in arrays.items()}

    def _begin(self, number: int, parameters: Parameters) -> None:
        config = {
            NUMBER: number,
            PARAMETERS: parameters,
            ROLE: "searched",
            SEED: self._job.config.train.seed,
            REPORTED: 0,
        }
        if self._trial is None:
            self._trial = PretrainTrial.__new__(PretrainTrial)
            self._trial.setup(config, self._job)
        else:
            assert self._trial.reset_config(config)


def learned(job: TrialJob, number: int, rungs: list[tuple[int, dict[str, float]]]) -> Learned:
    """What a trial has left in its folder."""
    folder = trial_folder(job.search, job.kind, number)
    checkpoint = folder.checkpoints().latest().checkpoint
    assert checkpoint is not None
    lines = [
        {name: value for name, value in line.items() if not name.startswith(OF_THE_MACHINE)}
        for line in read_metrics(folder.path)
    ]
    states = checkpoint.trainer_state["optimiser"]["state"]
    moments = {f"{index} {name}": value for index, state in states.items() for name, value in state.items()}
    return Learned(rungs, _digest(checkpoint.weights), _digest(moments), lines)


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _mapping_of(array: np.ndarray) -> str:
    """The file that the array's memory is mapped from; empty for the process's own."""
    address = array.__array_interface__["data"][0]
    for line in Path(f"/proc/{os.getpid()}/maps").read_text().splitlines():
        span = line.split()[0]
        start, stop = (int(end, 16) for end in span.split("-"))
        if start <= address < stop:
            return " ".join(line.split()[5:])
    return ""
