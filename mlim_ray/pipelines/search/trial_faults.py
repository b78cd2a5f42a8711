"""What goes wrong in a trial: told as its result where another try would meet it again, or where all trials would."""

import functools
from typing import Any

from ray import tune

from mlim_ray.data import storage
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.storage_error import StorageError
from mlim_ray.pipelines.failures import mistake_of, one_line
from mlim_ray.pipelines.search.trial_job import TrialJob, trial_folder
from mlim_ray.pipelines.search.trial_words import FAULT, IS_OUTSIDE, NUMBER, PARAMETERS, SEED, tune_result
from mlim_ray.training.non_finite import NonFiniteError

_OWNER = "trial.json"


def telling(trainable: type[tune.Trainable]) -> type[tune.Trainable]:
    """The class of a trial, so that a mistake ends the trial with a result and not its process with an error.

    Tune would try an error again, in a new process; NaN, or a combination of knobs that cannot be, come again. What
    lies outside of a trial (a disk that is full, a bucket that is away, a damaged shard) is told apart: every other
    trial would meet it too. All else is raised: Tune tries that again `search.num_retries` times.
    """

    class Telling(trainable):
        _fault: BaseException | None = None

        def setup(self, config: dict[str, Any], job: TrialJob, **others: Any) -> None:
            self._search, self._kind = job.search, job.kind
            self._begin_by(functools.partial(super().setup, config, job=job, **others), config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._begin_by(functools.partial(super().reset_config, new_config), new_config)
            return True

        def step(self) -> dict[str, Any]:
            if self._fault is None:
                try:
                    result: dict[str, Any] = super().step()
                    return result
                except Exception as error:
                    self._fault = _told(error)
            return fault_result(self._fault)

        def _begin_by(self, begin: Any, config: dict[str, Any]) -> None:
            self._fault = None
            try:
                take_folder(self._search, self._kind, config)
                begin()
            except Exception as error:
                self._fault = _told(error)

    # What Ray shows of it.
    Telling.__name__, Telling.__qualname__ = trainable.__name__, trainable.__qualname__
    return Telling


def take_folder(search: str, kind: str, trial: dict[str, Any]) -> None:
    """Make sure that what lies in a trial's folder is its own.

    A study whose last lines were lost with the driver's disk gives their numbers to other trials.
    """
    folder = trial_folder(search, kind, trial[NUMBER])
    owner = {"parameters": trial[PARAMETERS], "seed": trial[SEED]}
    try:
        if folder.read_json(_OWNER) == owner:
            return
    except storage.MissingPathError:
        pass
    storage.remove_tree(folder.path)
    folder.write_json(_OWNER, owner)


def fault_result(fault: BaseException) -> dict[str, Any]:
    """What a trial that met a fault tells Tune."""
    return {**tune_result(0, float("nan"), {}), FAULT: reason_of(fault), IS_OUTSIDE: is_outside(fault), "done": True}


def is_outside(fault: BaseException) -> bool:
    """Whether a mistake lies in what all trials share."""
    return isinstance(fault, StorageError | DamagedShardError | OSError)


def reason_of(fault: BaseException) -> str:
    """A fault in one line."""
    if isinstance(fault, NonFiniteError):
        # What follows tells how to mend a run; a trial is left as it is.
        return str(fault).split("; ")[0]
    return one_line(fault)


def _told(error: Exception) -> BaseException:
    """The mistake that an error is; any other error is raised again."""
    mistake = mistake_of(error)
    if mistake is None:
        raise error
    # Of a task that failed elsewhere.
    return getattr(mistake, "cause", None) or mistake
