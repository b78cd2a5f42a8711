"""Tune's searcher and scheduler over a study: its trials and ASHA, without a state of their own."""

import math
from typing import Any, NamedTuple

import ray.cloudpickle as cloudpickle
from optuna.trial import TrialState
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from mlim_ray.config import SearchConfig
from mlim_ray.config.score import rank_score
from mlim_ray.pipelines.failures import reason
from mlim_ray.pipelines.search.study import Begun, TrialStudy, role_of, rungs_of
from mlim_ray.pipelines.search.trial_words import (
    FAULT,
    IS_OUTSIDE,
    NUMBER,
    PARAMETERS,
    REPORTED,
    ROLE,
    SAMPLES,
    SCORE,
    SEED,
    measures_in,
)
from mlim_ray.reporting.progress import say

_FAILURE, _LOW_MEMORY = "Failure # ", "the node running low on memory"
"""Words of Tune's file of errors: before each of them, and of the one that it keeps as text alone."""


class StudySearch(Searcher):
    """Hands Tune the trials of the study: unfinished ones first, then new ones until the budget is used up."""

    def __init__(self, study: TrialStudy, max_samples: int) -> None:
        super().__init__(metric=SCORE, mode="min")
        self._study = study
        self._max_samples = max_samples
        self._unfinished = study.unfinished()
        self._number_of: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config, or FINISHED."""
        begun = self._study.unless_stopped(self._begin)
        if begun is None:
            return str(Searcher.FINISHED)
        self._number_of[trial_id] = begun.number
        return {
            NUMBER: begun.number,
            PARAMETERS: begun.parameters,
            ROLE: begun.role,
            SEED: begun.seed,
            REPORTED: self._study.last_samples(begun.number),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial: complete, pruned if it stopped short, failed where it has no finite score.

        Where the search ends for what lies outside of its trials, they stay as they are, to be taken up again.
        """
        number, result = self._number_of.pop(trial_id), result or {}
        if result.get(IS_OUTSIDE):
            self._study.stop(result[FAULT])
        self._study.unless_stopped(lambda: self._close(number, result, has_failed=error))

    def _begin(self) -> Begun | None:
        return self._study.take_up(self._unfinished.pop(0)) if self._unfinished else self._study.begin()

    def _close(self, number: int, result: dict[str, Any], *, has_failed: bool) -> None:
        if has_failed:
            self._study.finish(number, TrialState.FAIL, self._study.last_fault(number))
            return
        measures = measures_in(result)
        if FAULT in result or not measures:
            self._study.finish(number, TrialState.FAIL, result.get(FAULT, "it ended before its first score"))
            return
        samples, score = int(result[SAMPLES]), float(result[SCORE])
        if not math.isfinite(score):
            self._study.finish(number, TrialState.FAIL, f"its score is {score} at {samples:,} samples")
            return
        self._study.report(number, samples, measures)
        self._study.finish(number, TrialState.COMPLETE if samples >= self._max_samples else TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study has it all. Tune expects the file."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Never asked for: a search is resumed by starting it again."""


class _RungEntry(NamedTuple):
    """What ASHA's bracket asks of a trial: an identity that stays the same over restarts."""

    trial_id: str


class StudyAsha(ASHAScheduler):
    """Tune's ASHA on samples seen; scores go to the study first, and its rungs are rebuilt from there."""

    def __init__(self, study: TrialStudy, search: SearchConfig) -> None:
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
        self._stops_early = study.stops_early and search.stop_early
        bracket = self._brackets[0]
        for trial in study.trials():
            rungs = rungs_of(trial)
            steps = sorted(rungs)
            if trial.state == TrialState.RUNNING:
                # Its last verdict may not have been carried out: that result is handed in again and judged then.
                steps = steps[:-1]
            for step in steps:
                score = rank_score(study.objectives, rungs[step])
                if math.isfinite(score):
                    bracket.on_result(_entry(trial.number), step, -score)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on; the references always do, and none where the search is to end."""
        number, samples, score = trial.config[NUMBER], int(result[SAMPLES]), float(result[SCORE])
        if not math.isfinite(score):
            return str(TrialScheduler.STOP)
        measures = measures_in(result)
        verdict = self._study.unless_stopped(lambda: self._judge(number, samples, score, measures))
        return str(TrialScheduler.STOP) if verdict is None else verdict

    def _judge(self, number: int, samples: int, score: float, measures: dict[str, float]) -> str:
        """Record a score, then say what it means."""
        self._study.report(number, samples, measures)
        if samples >= self._max_t:
            return str(TrialScheduler.STOP)
        verdict = self._brackets[0].on_result(_entry(number), samples, -score)
        goes_on = not self._stops_early or role_of(self._study.trials()[number]) != "searched"
        return str(TrialScheduler.CONTINUE) if goes_on else str(verdict)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Remember why a trial's process failed; Tune calls this before each new try too."""
        self._trial_info.pop(trial.trial_id, None)
        number, fault = trial.config[NUMBER], _reason(trial)
        self._study.note_fault(number, fault)
        # Tune has marked a trial that it starts again; one that has failed for good is marked later.
        if trial.status == Trial.ERROR:
            say(f"trial {number}: {fault}: it starts again from its last rung")

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """The study has the last score already."""
        self._trial_info.pop(trial.trial_id, None)


def _reason(trial: Trial) -> str:
    """The last error in one line, without the way that it took through Ray."""
    # Tune's own way reads copies of its files, which are not there yet.
    with open(trial.error_file, encoding="utf-8") as file:
        text = file.read().rpartition(_FAILURE)[2].partition("\n")[2].strip()
    if _LOW_MEMORY in text:
        return reason(OutOfMemoryError(text))
    if trial.pickled_error_file is None:
        return text.splitlines()[-1]
    # This very process wrote it a moment ago; nothing that lies in a run folder from before is read.
    with open(trial.pickled_error_file, "rb") as file:
        error = cloudpickle.load(file)
    return reason(getattr(error, "cause", None) or error)


def _entry(number: int) -> _RungEntry:
    return _RungEntry(f"trial-{number}")
