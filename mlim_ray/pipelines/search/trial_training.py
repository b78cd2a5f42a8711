"""A trial's training from rung to rung: the same in one process and in each worker of a group."""

from collections.abc import Iterator
from typing import Any

import torch

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.score import rank_score
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.evaluation.measures import Measurer
from mlim_ray.pipelines.feed import stream_batches
from mlim_ray.pipelines.search.space import trial_config
from mlim_ray.pipelines.search.trial_job import Entry, TrialJob, trial_folder
from mlim_ray.pipelines.search.trial_label import TrialLabel
from mlim_ray.pipelines.search.trial_watch import TrialWatch
from mlim_ray.pipelines.search.trial_words import NUMBER, PARAMETERS, ROLE, SEED
from mlim_ray.training.batch import Batch
from mlim_ray.training.build import build_trainer, run_masking
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.control import Control
from mlim_ray.training.distributed import num_workers, rank, wait_for_all
from mlim_ray.training.init_from import load_start_of_trials
from mlim_ray.training.left_out import LeftOutLog
from mlim_ray.training.metrics import MetricsWriter
from mlim_ray.training.process_state import begin_afresh
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.stream import ShardReader, resident_batches, stream_order
from mlim_ray.training.trainer import Trainer

_HISTORY = "history"
_POLICY = CheckpointPolicy(num_kept=1)


class TrialTraining:
    """One trial, taken up where its folder's newest checkpoint stands.

    Of several workers, each has one, and all call the same methods in the same order; the first one writes.

    Args:
        job: what all trials of the search share.
        trial: what Tune hands to this one.
        device: where it trains.
        records: the training split in shared memory; None streams it.
        measurer: asked by the first worker.
    """

    def __init__(
        self,
        job: TrialJob,
        trial: dict[str, Any],
        device: torch.device,
        records: Records | None,
        measurer: Measurer,
    ) -> None:
        self._job = job
        self._measurer = measurer
        self.config = _for_budget(trial_config(job.config, trial[PARAMETERS], trial[SEED]), job.prepared)
        begin_afresh(self.config.train.seed, job.num_threads)
        folder = trial_folder(job.search, job.kind, trial[NUMBER])
        self._checkpoints = folder.checkpoints(_POLICY)
        self._trainer: Trainer = build_trainer(self.config, job.prepared, device)
        self.history: list[Entry] = []
        """samples and measures of each rung so far"""
        checkpoint = self._checkpoints.latest().checkpoint
        if checkpoint is not None:
            self._trainer.model.load_state_dict(checkpoint.weights)
            self._trainer.load_state(checkpoint.trainer_state)
            self.history = checkpoint.trainer_state[_HISTORY]
        elif job.config.model.init_from is not None:
            load_start_of_trials(self._trainer.model, RunFolder(job.search))
        # Nobody may forget an old checkpoint before all have read it.
        wait_for_all()
        self._metrics = MetricsWriter(folder.path, self._trainer.step) if rank() == 0 else None
        label = TrialLabel(job.kind, trial[NUMBER], trial[ROLE], trial[SEED], trial[PARAMETERS])
        self._watch = TrialWatch(job.search, label, self._trainer.step) if rank() == 0 else None
        self._left_out = LeftOutLog(folder.path, job.prepared, self._trainer.step)
        self._batches = self._feed(records)

    @property
    def samples(self) -> int:
        """Samples at the last rung; 0 before the first one."""
        return self.history[-1][0] if self.history else 0

    def next_rung(self, control: Control | None = None) -> Entry:
        """Train to the next rung, measure, and save; gives what was measured there.

        Only the first worker measures; the others give no measures. What was trained of the way to a rung is saved
        every `train.checkpoint_every_steps`.
        """
        trainer = self._trainer
        rung = next(level for level in self._job.config.search.rungs if level > self.samples)
        stop_step = trainer.order.steps_for(rung)

        def save() -> None:
            # At the rung itself it is saved with its measures, below.
            if trainer.step < stop_step:
                self._save(self._state())

        trainer.run(self._batches, stop_step, report=self._report, save=save, control=control)
        state = self._state()
        samples = trainer.order.samples_at(stop_step)
        measures = self._measurer(trainer.model) if rank() == 0 else {}
        entry = (samples, measures)
        self.history.append(entry)
        self._save(state)
        if self._watch is not None:
            self._watch.scored(stop_step, rank_score(self._job.config.search.objectives, measures), measures)
        return entry

    def name_process(self) -> None:
        """Show which trial this process runs."""
        if self._watch is not None:
            self._watch.name_process()

    def close(self) -> None:
        """Let go of the feed, and of what is shown."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        if self._watch is not None:
            self._watch.close()

    def _report(self, line: dict[str, Any]) -> None:
        if self._metrics is not None and self._watch is not None:
            self._metrics.write(line)
            self._watch.write(line)

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside weights and history; all workers take part."""
        self._left_out.save(self._trainer.step)
        return self._trainer.state()

    def _save(self, state: dict[str, Any]) -> None:
        if self._metrics is not None:
            self._metrics.flush()
            weights = self._trainer.model.state_dict()
            self._checkpoints.save(self._trainer.step, weights, {**state, _HISTORY: self.history})

    def _feed(self, records: Records | None) -> Iterator[Batch]:
        trainer, job = self._trainer, self._job
        masking = run_masking(self.config, trainer.model.config)
        lanes = trainer.order.lanes_of(rank(), num_workers())
        num_steps = self.config.train.num_steps
        if trainer.step >= num_steps:
            return iter(())
        if records is not None:
            return resident_batches(records, trainer.order, masking, lanes, trainer.step, num_steps, self._left_out.add)
        reader = ShardReader(job.prepared, trainer.order, masking, lanes, self.config.feed.skips_damaged)
        return stream_batches(reader, trainer.step, num_steps, self._left_out.add)


def _for_budget(config: SearchRunConfig, prepared: PreparedSet) -> SearchRunConfig:
    """The config whose schedule ends where a full trial does, whatever its batches hold."""
    num_steps = stream_order(prepared, config.train, config.feed).steps_for(config.search.max_samples)
    return config.model_copy(update={"train": config.train.model_copy(update={"num_steps": num_steps})})
