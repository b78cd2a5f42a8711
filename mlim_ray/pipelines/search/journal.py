"""The Optuna study on its journal: the only truth of a search (contract C6).

A driver may die at any line. What makes the next start exact was found by killing drivers at random: one driver at a
time, a journal cut to its last whole line, the sampler seeded anew for each trial number, and trials that were running
taken up first, under their own number.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config import SearchConfig
from mlim_ray.data import storage
from mlim_ray.pipelines.search.space import (
    REFERENCES,
    Parameters,
    Role,
    reference_parameters,
    suggest,
)
from mlim_ray.training.run_folder import RunFolder

STUDY_NAME = "mlim_ray"
_FILE = "study.log"
_SEED_STRIDE = 100_003
_PARAMETERS, _ROLE = "parameters", "role"


class SearchStudy:
    """The study that searcher and scheduler share.

    Tune copies both deeply; the study must stay one, so it hands itself out as its own copy.
    """

    def __init__(
        self,
        journal: str,
        search: SearchConfig,
        *,
        seed: int,
        recon_weight: float,
        learning_rate: float,
        on_change: Callable[[], None],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._search = search
        self._seed = seed
        self._recon_weight = recon_weight
        self._learning_rate = learning_rate
        self._on_change = on_change
        self._study = optuna.create_study(
            study_name=STUDY_NAME,
            storage=JournalStorage(JournalFileBackend(journal)),
            direction="minimize",
            load_if_exists=True,
        )
        self._open: dict[int, optuna.Trial] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        # Tune writes its parts to disk for a restore that is never asked for: the journal is what is restored from.
        return _no_study, ()

    def trials(self) -> list[FrozenTrial]:
        """All trials, as the journal has them."""
        return self._study.get_trials(deepcopy=False)

    def unfinished(self) -> list[int]:
        """Numbers of the trials that were running when the last driver ended."""
        return [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]

    @property
    def is_complete(self) -> bool:
        """Whether every trial of the budget has ended."""
        return len(self.trials()) >= self._search.num_trials and not self.unfinished()

    def begin(self) -> tuple[int, Parameters, Role] | None:
        """A new trial, its parameters and role; None once the budget is used up."""
        number = len(self.trials())
        if number >= self._search.num_trials:
            return None
        # The draw of trial n depends on the seed, n and the journal, not on how often a driver was started.
        self._study.sampler = TPESampler(
            seed=self._seed * _SEED_STRIDE + number, n_startup_trials=max(4, self._search.num_trials // 4)
        )
        role: Role = REFERENCES[number] if number < len(REFERENCES) else "searched"
        if role != "searched":
            fixed = reference_parameters(role, self._recon_weight, self._learning_rate)
            self._study.enqueue_trial(dict(fixed))
        trial = self._study.ask()
        with _exact_references():
            parameters = suggest(trial, self._search, self._learning_rate)
        trial.set_user_attr(_ROLE, role)
        trial.set_user_attr(_PARAMETERS, parameters)
        self._open[trial.number] = trial
        return trial.number, parameters, role

    def take_up(self, number: int) -> tuple[int, Parameters, Role] | None:
        """A trial that the last driver left running, under its own number."""
        frozen = self.trials()[number]
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        if _PARAMETERS not in frozen.user_attrs:
            # The driver died between asking and drawing: nothing was trained, so the trial is drawn now.
            with _exact_references():
                parameters = suggest(trial, self._search, self._learning_rate)
            role: Role = REFERENCES[number] if number < len(REFERENCES) else "searched"
            trial.set_user_attr(_ROLE, role)
            trial.set_user_attr(_PARAMETERS, parameters)
            frozen = self.trials()[number]
        self._open[number] = trial
        return number, frozen.user_attrs[_PARAMETERS], frozen.user_attrs[_ROLE]

    def last_samples(self, number: int) -> int:
        """Samples at the last score that the journal has of a trial; 0 without any."""
        return self.trials()[number].last_step or 0

    def report(self, number: int, samples: int, score: float) -> None:
        """Record a rung's score, before Tune acts on it; one that the journal has already is left as it is."""
        if samples not in self.trials()[number].intermediate_values:
            self._open[number].report(score, samples)
            self._on_change()

    def finish(self, number: int, state: TrialState, score: float | None) -> None:
        """Close a trial."""
        trial = self._open.pop(number)
        values = score if state == TrialState.COMPLETE else None
        self._study.tell(trial, values=values, state=state, skip_if_finished=True)
        self._on_change()


def _no_study() -> None:
    return None


def role_of(trial: FrozenTrial) -> Role:
    """Which reference a trial is, or that it was searched."""
    role: Role = trial.user_attrs[_ROLE]
    return role


def parameters_of(trial: FrozenTrial) -> Parameters:
    """The parameters that a trial ran with."""
    parameters: Parameters = trial.user_attrs[_PARAMETERS]
    return parameters


@contextlib.contextmanager
def open_journal(folder: RunFolder) -> Iterator[str]:
    """The journal's local path, whole to its last line and free of a dead driver's lock.

    Optuna's journal needs a local file. For a search on S3 it is fetched first and written back as the search goes
    (`sync_journal`) and at the end. One driver at a time is held by the run folder's lease.
    """
    if not storage.is_remote(folder.path):
        path = folder.file(_FILE)
        _mend(path)
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, _FILE)
        if storage.exists(folder.file(_FILE)):
            storage.write_bytes_atomically(path, storage.read_bytes(folder.file(_FILE)))
            _mend(path)
        try:
            yield path
        finally:
            sync_journal(folder, path)


def sync_journal(folder: RunFolder, journal: str) -> None:
    """Copy the journal of a search on S3 to its folder; nothing to do for a local one."""
    if storage.is_remote(folder.path) and os.path.exists(journal):
        storage.write_bytes_atomically(folder.file(_FILE), storage.read_bytes(journal))


def _mend(path: str) -> None:
    """Cut a torn last line, which the next write would be glued to, and drop a dead driver's lock."""
    if os.path.exists(path):
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    if os.path.lexists(path + ".lock"):
        os.unlink(path + ".lock")


@contextlib.contextmanager
def _exact_references() -> Iterator[None]:
    """References keep their exact values even where they lie outside the searched ranges, which Optuna warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
