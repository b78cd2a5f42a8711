"""A trial: the core's loop inside a class Trainable that Tune reuses from trial to trial."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import tune

from mlim_ray.config import SearchRunConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.evaluation.measures import Measurer
from mlim_ray.pipelines.feed import stream_batches
from mlim_ray.pipelines.search.searcher import NUMBER, PARAMETERS, REPORTED, ROLE, SEED, tune_result
from mlim_ray.pipelines.search.space import trial_config
from mlim_ray.pipelines.search.study import rank_score
from mlim_ray.pipelines.search.trial_label import TrialLabel
from mlim_ray.pipelines.search.trial_watch import TrialWatch
from mlim_ray.training.batch import Batch
from mlim_ray.training.build import build_trainer, run_masking
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.init_from import load_start_of_trials
from mlim_ray.training.left_out import LeftOutLog
from mlim_ray.training.metrics import MetricsWriter
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.stream import ShardReader, resident_batches, stream_order
from mlim_ray.training.trainer import Trainer

_HISTORY = "history"
_POLICY = CheckpointPolicy(num_kept=1)


@dataclass(frozen=True)
class TrialJob:
    """All that every trial of a search shares."""

    config: SearchRunConfig
    prepared: PreparedSet
    search: str
    """folder of the search"""
    kind: str
    """folder in it that the trials are kept in"""
    num_threads: int
    resident: "ray.ObjectRef[Records] | None"
    """the training split in shared memory; None streams it"""


TRIALS, CONFIRMATION = "trials", "confirm"
"""Kinds of trials: those of the search, and those that run the best again."""


def trial_folder(search: str, kind: str, number: int) -> RunFolder:
    """Where a trial keeps its checkpoint and metrics."""
    return RunFolder(RunFolder(search).file(kind, f"{number:05d}"))


class PretrainTrial(tune.Trainable):
    """One step of Tune is the training from one rung to the next, and the score there.

    Tune's checkpoints are not used: a trial keeps its own, with the scores that the journal may not have yet.
    """

    _job: TrialJob

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Called once a process: what all trials share."""
        self._job = job
        torch.set_num_threads(job.num_threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._records = None if job.resident is None else ray.get(job.resident)
        self._measurer: Measurer | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score; or hand in again what the journal may have lost, without computing."""
        self._watch.name_process()
        if self._replay:
            return self._result(*self._replay.pop(0))
        trainer, search = self._trainer, self._job.config.search
        samples_now = trainer.order.samples_at(trainer.step)
        rung = next(level for level in search.rungs if level > samples_now)
        stop_step = trainer.order.steps_for(rung)
        trainer.run(self._batches, stop_step, report=self._report)
        samples = trainer.order.samples_at(stop_step)
        measures = self._measures()
        self._history.append((samples, measures))
        self._left_out.save(trainer.step)
        self._metrics.flush()
        self._folder.checkpoints(_POLICY).save(
            trainer.step, trainer.model.state_dict(), {**trainer.state(), _HISTORY: self._history}
        )
        self._watch.scored(stop_step, rank_score(search.objectives, measures), measures)
        return self._result(samples, measures)

    def cleanup(self) -> None:
        """Let go of the feed, and of what is shown."""
        self._close()

    def __repr__(self) -> str:
        # Ray reads this once a process, so it must not name the trial.
        return f"trials in process {os.getpid()}"

    def _begin(self, config: dict[str, Any]) -> None:
        self._close()
        job = self._job
        self._config = _for_budget(trial_config(job.config, config[PARAMETERS], config[SEED]), job.prepared)
        self._folder = trial_folder(job.search, job.kind, config[NUMBER])
        self._trainer: Trainer = build_trainer(self._config, job.prepared, self._device)
        self._history: list[tuple[int, dict[str, float]]] = []
        checkpoint = self._folder.checkpoints().latest().checkpoint
        if checkpoint is not None:
            self._trainer.model.load_state_dict(checkpoint.weights)
            self._trainer.load_state(checkpoint.trainer_state)
            self._history = checkpoint.trainer_state[_HISTORY]
        elif job.config.model.init_from is not None:
            load_start_of_trials(self._trainer.model, RunFolder(job.search))
        # The journal's last score is handed in again too: its verdict may not have been carried out.
        self._replay = [entry for entry in self._history if entry[0] >= config[REPORTED]]
        self._metrics = MetricsWriter(self._folder.path, self._trainer.step)
        self._left_out = LeftOutLog(self._folder.path, job.prepared, self._trainer.step)
        label = TrialLabel(job.kind, config[NUMBER], config[ROLE], config[SEED], config[PARAMETERS])
        self._watch = TrialWatch(job.search, label, self._trainer.step)
        self._batches = self._feed()

    def _report(self, line: dict[str, Any]) -> None:
        self._metrics.write(line)
        self._watch.write(line)

    def _feed(self) -> Iterator[Batch]:
        trainer, job = self._trainer, self._job
        masking = run_masking(self._config, trainer.model.config.num_cells)
        lanes = trainer.order.lanes_of(0, 1)
        num_steps = self._config.train.num_steps
        if trainer.step >= num_steps:
            return iter(())
        if self._records is not None:
            return resident_batches(
                self._records, trainer.order, masking, lanes, trainer.step, num_steps, self._left_out.add
            )
        skips_damaged = self._config.feed.skips_damaged
        reader = ShardReader(job.prepared, trainer.order, masking, lanes, skips_damaged)
        return stream_batches(reader, trainer.step, num_steps, self._left_out.add)

    def _measures(self) -> dict[str, float]:
        job, model = self._job, self._trainer.model
        if self._measurer is None:
            objectives = job.config.search.objectives
            self._measurer = Measurer(job.prepared, job.config, objectives, model.config.num_cells)
        return self._measurer(model)

    def _result(self, samples: int, measures: dict[str, float]) -> dict[str, Any]:
        search = self._job.config.search
        score = rank_score(search.objectives, measures)
        return {**tune_result(samples, score, measures), "done": samples >= search.max_samples}

    def _close(self) -> None:
        close = getattr(getattr(self, "_batches", None), "close", None)
        if close is not None:
            close()
        if hasattr(self, "_watch"):
            self._watch.close()


def _for_budget(config: SearchRunConfig, prepared: PreparedSet) -> SearchRunConfig:
    """The config whose schedule ends where a full trial does, whatever its batches hold."""
    num_steps = stream_order(prepared, config.train, config.feed).steps_for(config.search.max_samples)
    return config.model_copy(update={"train": config.train.model_copy(update={"num_steps": num_steps})})
