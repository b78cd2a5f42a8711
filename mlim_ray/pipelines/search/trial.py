"""A trial of one worker: the core's loop inside a class Trainable that Tune reuses from trial to trial."""

import os
from typing import Any

import ray
import torch
from ray import tune

from mlim_ray.evaluation.measures import Measurer
from mlim_ray.pipelines.search.trial_job import TrialJob
from mlim_ray.pipelines.search.trial_training import TrialTraining
from mlim_ray.pipelines.search.trial_words import REPORTED
from mlim_ray.training.process_state import limit_to_share, release_memory, spare_from_collection


class PretrainTrial(tune.Trainable):
    """One step of Tune is the training from one rung to the next, and the score there.

    Tune's checkpoints are not used: a trial keeps its own, with the scores that the journal may not have yet.
    """

    _training: TrialTraining | None = None

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Called once a process: what all trials share."""
        self._job = job
        limit_to_share(job.config.search.gpus_per_trial)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._records = None if job.resident is None else ray.get(job.resident)
        self._measurer: Measurer = ray.get(job.measurer)
        spare_from_collection()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score; or hand in again what the journal may have lost, without computing."""
        assert self._training is not None, "Tune steps no trial before it is set up"
        self._training.name_process()
        if self._replay:
            return self._job.result(self._replay.pop(0))
        return self._job.result(self._training.next_rung())

    def cleanup(self) -> None:
        """Let go of the last trial, and of what is shown of it."""
        self._release()

    def __repr__(self) -> str:
        # Ray reads this once a process, so it must not name the trial.
        return f"trials in process {os.getpid()}"

    def _begin(self, config: dict[str, Any]) -> None:
        self._release()
        self._training = training = TrialTraining(self._job, config, self._device, self._records, self._measurer)
        # The journal's last score is handed in again too: its verdict may not have been carried out.
        self._replay = [entry for entry in training.history if entry[0] >= config[REPORTED]]

    def _release(self) -> None:
        """Let go of all that the last trial held, so that the next one is as it would have been alone."""
        if self._training is not None:
            training, self._training = self._training, None
            was_compiled = training.config.train.compile
            training.close()
            del training
            release_memory(was_compiled=was_compiled)
