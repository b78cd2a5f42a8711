"""Tune's searcher and scheduler over the journal: OptunaSearch's TPE and ASHA, without a state of their own."""

import math
from typing import Any, NamedTuple

from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from mlim_ray.config import SearchConfig
from mlim_ray.pipelines.search.journal import SearchStudy, role_of

SCORE, SAMPLES, NUMBER, ROLE, PARAMETERS, REPORTED = (
    "score",
    "samples",
    "trial_number",
    "role",
    "parameters",
    "reported_samples",
)


class JournalSearch(Searcher):
    """Hands Tune the trials of the study: unfinished ones first, then new ones until the budget is used up."""

    def __init__(self, study: SearchStudy, max_samples: int) -> None:
        super().__init__(metric=SCORE, mode="min")
        self._study = study
        self._max_samples = max_samples
        self._unfinished = study.unfinished()
        self._number_of: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config, or FINISHED."""
        begun = self._study.take_up(self._unfinished.pop(0)) if self._unfinished else self._study.begin()
        if begun is None:
            return str(Searcher.FINISHED)
        number, parameters, role = begun
        self._number_of[trial_id] = number
        return {
            NUMBER: number,
            PARAMETERS: parameters,
            ROLE: role,
            REPORTED: self._study.last_samples(number),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial in the journal: complete, pruned if it stopped short or diverged, failed on an error."""
        number = self._number_of.pop(trial_id)
        score = (result or {}).get(SCORE)
        if error or result is None or score is None:
            self._study.finish(number, TrialState.FAIL, None)
            return
        self._study.report(number, int(result[SAMPLES]), float(score))
        is_whole = math.isfinite(score) and result[SAMPLES] >= self._max_samples
        self._study.finish(number, TrialState.COMPLETE if is_whole else TrialState.PRUNED, float(score))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has it all. Tune expects the file."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Never asked for: a search is resumed by starting it again."""


class _RungEntry(NamedTuple):
    """What ASHA's bracket asks of a trial: an identity that stays the same over restarts."""

    trial_id: str


class JournalAsha(ASHAScheduler):
    """Tune's ASHA on samples seen; scores go to the journal first, and its rungs are rebuilt from there."""

    def __init__(self, study: SearchStudy, search: SearchConfig) -> None:
        levels = search.rungs
        super().__init__(
            time_attr=SAMPLES,
            metric=SCORE,
            mode="min",
            max_t=search.max_samples,
            grace_period=levels[0],
            reduction_factor=search.reduction_factor,
        )
        self._study = study
        bracket = self._brackets[0]
        for trial in study.trials():
            steps = sorted(trial.intermediate_values)
            if trial.state == TrialState.RUNNING:
                # Its last verdict may not have been carried out: that result is handed in again and judged then.
                steps = steps[:-1]
            for step in steps:
                score = trial.intermediate_values[step]
                if math.isfinite(score):
                    bracket.on_result(_entry(trial.number), step, -score)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on; the references always do."""
        number, samples, score = trial.config[NUMBER], int(result[SAMPLES]), float(result[SCORE])
        self._study.report(number, samples, score)
        if not math.isfinite(score) or samples >= self._max_t:
            return str(TrialScheduler.STOP)
        verdict = self._brackets[0].on_result(_entry(number), samples, -score)
        is_reference = role_of(self._study.trials()[number]) != "searched"
        return str(TrialScheduler.CONTINUE) if is_reference else str(verdict)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """The journal has the last score already."""
        self._trial_info.pop(trial.trial_id, None)


def _entry(number: int) -> _RungEntry:
    return _RungEntry(f"trial-{number}")
