"""The workers of one trial, started below its process by Ray Train."""

import threading
from typing import Any

import ray
import ray.exceptions
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from mlim_ray.pipelines.failures import NoteFailures, mistake_of
from mlim_ray.pipelines.resources import WorkerPlan
from mlim_ray.pipelines.search.group_worker import GroupTask, train_trial
from mlim_ray.pipelines.search.relay import start_relay
from mlim_ray.pipelines.search.trial_job import Entry, TrialJob, trial_folder
from mlim_ray.pipelines.search.trial_words import NUMBER
from mlim_ray.pipelines.setting import ray_folder
from mlim_ray.pipelines.torch_trainer import make_trainer
from mlim_ray.training.run_folder import RunFolder

_POLL_EVERY_S = 0.5
_END_WITHIN_S = 30.0
"""workers that wait for the next rung end within a second; a hanging one is not waited for any longer"""


class TrialGroup:
    """A trial's workers, from here to `end`; those that die are started again, and go on from its checkpoint.

    Args:
        job: what all trials of the search share.
        plan: the workers of one trial.
        trial: what Tune hands to this one.
    """

    def __init__(self, job: TrialJob, plan: WorkerPlan, trial: dict[str, Any]) -> None:
        self._number: int = trial[NUMBER]
        self._relay = start_relay()
        self._error: BaseException | None = None
        folder = trial_folder(job.search, job.kind, self._number)
        self._trainer = make_trainer(
            _Trainer,
            train_trial,
            {"task": GroupTask(job, trial, self._relay)},
            config=job.config.train,
            plan=plan,
            name=f"{job.kind}-{self._number:05d}",
            folder=ray_folder(RunFolder(job.search)),
            callbacks=[NoteFailures(folder.anywhere)],
        )
        # In a thread, since this process is asked for the rungs one by one.
        self._thread = threading.Thread(target=self._fit, name="fit", daemon=True)
        self._thread.start()

    def next_entry(self, after: int) -> Entry:
        """The first rung beyond `after` samples, once the workers have been there.

        Raises:
            Exception: what ended the workers for good.
        """
        asked = self._relay.next_entry.remote(after)
        while True:
            is_over = not self._thread.is_alive()
            ready, _ = ray.wait([asked], timeout=_POLL_EVERY_S)
            if ready:
                entry: Entry = ray.get(asked)
                return entry
            if is_over:
                error = self._error
                if error is None:
                    raise RuntimeError(f"the workers of trial {self._number} ended before it was over")
                mistake = mistake_of(error)
                raise error if mistake is None else mistake

    def end(self) -> None:
        """End the workers and free what they had reserved.

        Raises:
            TimeoutError: they do not end; they do so with this process.
        """
        self._relay.end.remote()
        self._thread.join(_END_WITHIN_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the workers of trial {self._number} did not end within {_END_WITHIN_S:g} s")

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._error = error


class _Trainer(TorchTrainer):
    """Ray Train's own, without the process that is to free what a dead controller had reserved: it outlives the driver
    where no dashboard runs, and the search has a `Reaper`."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]
