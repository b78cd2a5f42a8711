"""The Optuna studies of a search: the only truth of it (contract C6).

A driver may die at any line. What makes the next start exact was found by killing drivers at random: one driver at a
time, a journal cut to its last whole line, the sampler seeded anew for each trial number, and trials that were running
taken up first, under their own number.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.score import Objective
from mlim_ray.pipelines.search.database import plain_cause
from mlim_ray.pipelines.search.space import (
    REFERENCES,
    Parameters,
    lies_in,
    reference_parameters,
    suggest,
)
from mlim_ray.reporting.search_figures import Role

Result = TypeVar("Result")

STUDY_NAME = "mlim_ray"
CONFIRMATION_NAME = "mlim_ray-confirmation"
_SEED_STRIDE = 100_003
_NUM_STARTUP_TRIALS = 8
_PARAMETERS, _ROLE, _SEED, _RUNGS, _OF, _REASON = "parameters", "role", "seed", "rungs", "of", "reason"


class Begun(NamedTuple):
    """What a trial is to run."""

    number: int
    parameters: Parameters
    role: Role
    seed: int


class _Plan(NamedTuple):
    """What the next trial is to run, decided before it is asked for."""

    parameters: Parameters
    role: Role
    seed: int
    attributes: dict[str, int] = {}  # noqa: RUF012


class TrialStudy(ABC):
    """Trials that searcher and scheduler share.

    Tune copies both deeply; the study must stay one, so it hands itself out as its own copy.
    """

    stops_early = True
    """whether trials that fall behind are stopped at a rung"""

    def __init__(
        self, name: str, storage: BaseStorage, objectives: Sequence[Objective], on_change: Callable[[], None]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.objectives = tuple(objectives)
        self._on_change = on_change
        self._study = optuna.create_study(
            study_name=name, storage=storage, directions=["minimize"] * len(self.objectives), load_if_exists=True
        )
        # All that is asked for was decided before; whatever samples here is never heard.
        self._study.sampler = RandomSampler()
        self._open: dict[int, optuna.Trial] = {}
        self._faults: dict[int, str] = {}
        self.stopped_by: str | None = None
        """what ends the search before its budget, and lies outside of its trials"""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        # Tune writes its parts to disk for a restore that is never asked for: the journal is what is restored from.
        return _no_study, ()

    @property
    @abstractmethod
    def num_trials(self) -> int:
        """All that are to be run."""

    @abstractmethod
    def _next(self, number: int) -> _Plan:
        """What the trial of this number is to run."""

    @abstractmethod
    def _tell_sampler(self, trial: optuna.Trial, parameters: Parameters) -> None:
        """Let the study know a trial's parameters, if its sampler is to learn from them."""

    def trials(self) -> list[FrozenTrial]:
        """All trials, as the storage has them."""
        return self._study.get_trials(deepcopy=False)

    def unfinished(self) -> list[int]:
        """Numbers of the trials that were running when the last driver ended."""
        return [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]

    def stop(self, reason: str) -> None:
        """End the search: no trial is begun or closed from now on, and the next start takes up those that run."""
        self.stopped_by = self.stopped_by or reason

    def unless_stopped(self, act: Callable[[], Result]) -> Result | None:
        """What `act` gives; None where the search is to end, or ends because the storage fails.

        Tune would take such an error for one of the trial.
        """
        if self.stopped_by is not None:
            return None
        try:
            return act()
        except (OSError, StorageInternalError, SQLAlchemyError) as error:
            self.stop(f"the study cannot be kept: {plain_cause(error)}")
            return None

    def note_fault(self, number: int, reason: str) -> None:
        """Remember why a trial's process failed, should there be no further try."""
        self._faults[number] = reason

    def last_fault(self, number: int) -> str | None:
        """Why a trial's process failed."""
        return self._faults.get(number)

    @property
    def is_complete(self) -> bool:
        """Whether every trial of the budget has ended."""
        return len(self.trials()) >= self.num_trials and all(trial.state.is_finished() for trial in self.trials())

    def begin(self) -> Begun | None:
        """A new trial; None once the budget is used up."""
        number = sum(trial.state != TrialState.WAITING for trial in self.trials())
        if number >= self.num_trials:
            return None
        if number == len(self.trials()):
            plan = self._next(number)
            attributes = {_PARAMETERS: plan.parameters, _ROLE: plan.role, _SEED: plan.seed, **plan.attributes}
            # In one write: a driver that dies here or later leaves a trial that knows all it is to run.
            self._study.enqueue_trial(dict(plan.parameters), user_attrs=attributes)
        self._study.ask()
        begun = self.take_up(number)
        self._on_change()
        return begun

    def take_up(self, number: int) -> Begun:
        """A trial that was asked for, by this driver or by the last one, under its own number."""
        frozen = self.trials()[number]
        trial = self._open[number] = optuna.trial.Trial(self._study, frozen._trial_id)
        self._tell_sampler(trial, parameters_of(frozen))
        self._on_change()
        return Begun(number, parameters_of(frozen), role_of(frozen), seed_of(frozen))

    def last_samples(self, number: int) -> int:
        """Samples at the last score that the storage has of a trial; 0 without any."""
        return max(rungs_of(self.trials()[number]), default=0)

    def report(self, number: int, samples: int, measures: dict[str, float]) -> None:
        """Record a rung's measures, before Tune acts on them; what the storage has already is left as it is."""
        frozen, trial = self.trials()[number], self._open[number]
        known = rungs_of(frozen)
        if samples not in known:
            trial.set_user_attr(_RUNGS, {str(rung): known[rung] for rung in sorted(known)} | {str(samples): measures})
        if len(self.objectives) == 1 and samples not in frozen.intermediate_values:
            trial.report(self.objectives[0].of(measures), samples)
            self._on_change()
        elif samples not in known:
            self._on_change()

    def finish(self, number: int, state: TrialState, reason: str | None = None) -> None:
        """Close a trial; `reason` says why it failed."""
        trial = self._open.pop(number)
        if reason is not None:
            trial.set_user_attr(_REASON, reason)
        values = None
        if state == TrialState.COMPLETE:
            rungs = rungs_of(self.trials()[number])
            values = [objective.of(rungs[max(rungs)]) for objective in self.objectives]
        self._study.tell(trial, values=values, state=state, skip_if_finished=True)
        self._on_change()


class SearchStudy(TrialStudy):
    """The references, then what the sampler proposes."""

    def __init__(
        self, storage: BaseStorage, config: SearchRunConfig, on_change: Callable[[], None], name: str = STUDY_NAME
    ) -> None:
        super().__init__(name, storage, config.search.objectives, on_change)
        self._config = config
        self._space = config.dimensions
        self._shown = optuna.create_study(directions=self._study.directions)
        """what the sampler learns from: each trial that has ended, once, in the order of their ends"""
        self._shown_numbers: set[int] = set()

    @property
    def num_trials(self) -> int:
        """The references included; what was begun is never given up, should fewer be asked for later."""
        return max(self._config.search.num_trials, len(self.trials()))

    def _next(self, number: int) -> _Plan:
        seed = self._config.train.seed
        if number < len(REFERENCES):
            role = REFERENCES[number]
            return _Plan(reference_parameters(role, self._config, self._space), role, seed)
        return _Plan(self._propose(number), "searched", seed)

    def _propose(self, number: int) -> Parameters:
        """The draw of trial n follows from the seed, n and the trials that have ended, not from the driver's starts."""
        ended = [
            trial for trial in self.trials() if trial.state.is_finished() and trial.number not in self._shown_numbers
        ]
        # One by one, for all of them anew would cost more with each trial that the search has had.
        self._shown.add_trials(sorted(ended, key=_end_of))
        self._shown_numbers.update(trial.number for trial in ended)
        self._shown.sampler = self._sampler(number)
        asked = self._shown.ask()
        parameters = suggest(asked, self._space)
        self._shown.tell(asked, state=TrialState.FAIL)
        return parameters

    def _tell_sampler(self, trial: optuna.Trial, parameters: Parameters) -> None:
        # The sampler cannot learn from references that its space does not hold.
        if lies_in(self._space, parameters):
            suggest(trial, self._space)

    def _sampler(self, number: int) -> BaseSampler:
        seed = self._config.train.seed * _SEED_STRIDE + number
        if self._config.search.sampler == "random":
            return RandomSampler(seed=seed)
        with warnings.catch_warnings():
            # Optuna calls joint sampling of each policy's own parameters experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=seed, n_startup_trials=_NUM_STARTUP_TRIALS, multivariate=True, group=True)


class Arm(NamedTuple):
    """A trial of the search that is run again with fresh seeds."""

    trial: int
    role: Role
    parameters: Parameters


class ConfirmationStudy(TrialStudy):
    """Each arm with each fresh seed, at the full budget; a plan that grows leaves what was run as it is."""

    stops_early = False

    def __init__(
        self,
        storage: BaseStorage,
        config: SearchRunConfig,
        arms: Sequence[Arm],
        on_change: Callable[[], None],
        name: str = CONFIRMATION_NAME,
    ) -> None:
        super().__init__(name, storage, config.search.objectives, on_change)
        self.seeds = [config.train.seed + 1 + number for number in range(config.search.num_confirm_seeds)]
        known = [(arm_of(trial), seed_of(trial)) for trial in self.trials()]
        wanted = [(arm, seed) for seed in self.seeds for arm in arms]
        self._planned = [(arm, seed) for arm, seed in wanted if (arm.trial, seed) not in known]
        self._num_known = len(known)

    @property
    def num_trials(self) -> int:
        """Those of an earlier plan included."""
        return self._num_known + len(self._planned)

    def _next(self, number: int) -> _Plan:
        arm, seed = self._planned[number - self._num_known]
        return _Plan(arm.parameters, arm.role, seed, {_OF: arm.trial})

    def _tell_sampler(self, trial: optuna.Trial, parameters: Parameters) -> None:
        # Nothing is sampled: the plan says it all.
        pass


def _end_of(trial: FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_complete is not None, "it has ended"
    return trial.datetime_complete, trial.number


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


def seed_of(trial: FrozenTrial) -> int:
    """The seed that a trial ran with."""
    return int(trial.user_attrs[_SEED])


def arm_of(trial: FrozenTrial) -> int:
    """The trial of the search that a confirming one runs again."""
    return int(trial.user_attrs[_OF])


def reason_of(trial: FrozenTrial) -> str | None:
    """Why a trial failed."""
    reason: str | None = trial.user_attrs.get(_REASON)
    return reason


def rungs_of(trial: FrozenTrial) -> dict[int, dict[str, float]]:
    """The measures at each rung that a trial reached, by samples."""
    return {int(samples): measures for samples, measures in trial.user_attrs.get(_RUNGS, {}).items()}
