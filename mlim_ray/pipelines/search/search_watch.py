"""What the driver shows of a search while it runs: the table on the screen, and each trial's story in its log."""

import json
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config import SearchConfig
from mlim_ray.config.score import rank_score
from mlim_ray.data import storage
from mlim_ray.pipelines.search.study import parameters_of, reason_of, role_of, rungs_of, seed_of
from mlim_ray.pipelines.search.trial_job import TRIALS, trial_folder
from mlim_ray.pipelines.search.trial_label import TrialLabel
from mlim_ray.pipelines.search.trial_log import TrialLog, figures_text
from mlim_ray.reporting.search_table import WORDS, SearchTable, TrialRow
from mlim_ray.training.run_folder import RunFolder

_TAIL_BYTES = 16_384


class SearchWatch:
    """Shows the trials of one study: `with SearchWatch(...) as watch: watch.update(study.trials())`.

    Args:
        folder: of the search.
        search: objectives, budget of a trial, price.
        kind: of the trials, see `TrialLabel`.
        num_trials: of the whole study.
    """

    def __init__(self, folder: RunFolder, search: SearchConfig, kind: str, num_trials: int) -> None:
        self._objectives = search.objectives
        self._folder = folder
        self._kind = kind
        self._table = SearchTable(
            num_trials,
            search.max_samples,
            name="search" if kind == TRIALS else kind,
            # Of a number of its own: the confirmation's first is not the search's.
            one="trial" if kind == TRIALS else "confirming run",
            objectives=tuple(objective.name for objective in self._objectives),
            price_per_hour=search.price_per_hour,
            samples_now=None if storage.is_remote(folder.path) else self._samples_now,
        )
        self._logs: dict[int, TrialLog] = {}
        self._num_logged: dict[int, int] = {}
        self._ended: set[int] | None = None

    def __enter__(self) -> Self:
        self._table.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.__exit__(kind, error, trace)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show how all trials of the study stand; what had ended at the first call is left as it was told then."""
        begun = [trial for trial in trials if trial.state.name in WORDS]
        self._table.update([self._row(trial) for trial in begun])
        if self._ended is None:
            self._ended = {trial.number for trial in begun if trial.state.is_finished()}
        for trial in begun:
            if trial.number not in self._ended:
                self._log(trial)
                if trial.state.is_finished():
                    self._ended.add(trial.number)

    def _row(self, trial: FrozenTrial) -> TrialRow:
        rungs = rungs_of(trial)
        newest = max(rungs, default=0)
        return TrialRow(
            number=trial.number,
            role=role_of(trial),
            policy=str(parameters_of(trial)["policy"]),
            state=trial.state.name,
            samples=newest,
            scores=tuple(objective.of(rungs[newest]) for objective in self._objectives) if rungs else (),
            reason=reason_of(trial),
        )

    def _log(self, trial: FrozenTrial) -> None:
        number, rungs = trial.number, rungs_of(trial)
        if number not in self._logs:
            label = TrialLabel(self._kind, number, role_of(trial), seed_of(trial), parameters_of(trial))
            self._logs[number] = TrialLog(label)
            # What an earlier start logged lies in the logs of its own Ray session.
            self._num_logged[number] = 0
        log = self._logs[number]
        for samples in sorted(rungs)[self._num_logged[number] :]:
            log.write(f"rung {samples:,} samples: {figures_text(self._scores(rungs[samples]) | rungs[samples])}")
        self._num_logged[number] = len(rungs)
        if trial.state.is_finished():
            log.write(f"{WORDS[trial.state.name]} at {max(rungs, default=0):,} samples{_why(trial)}")
            del self._logs[number]

    def _scores(self, measures: dict[str, float]) -> dict[str, float]:
        """What ranks the trial, by name: one score, or each of several and their mean."""
        scores = {objective.name: objective.of(measures) for objective in self._objectives}
        return scores if len(scores) == 1 else {"score": rank_score(self._objectives, measures), **scores}

    def _samples_now(self, number: int) -> int:
        """Samples in the newest line of a running trial's metrics; on S3 lines come late, so that rungs have to do."""
        path = trial_folder(self._folder.path, self._kind, number).file("metrics.jsonl")
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return 0
        lines = tail[: tail.rfind(b"\n") + 1].splitlines()
        return int(json.loads(lines[-1])["samples"]) if lines else 0


def _why(trial: FrozenTrial) -> str:
    """Why a trial ended before it had seen all its samples."""
    reason = reason_of(trial)
    if reason is None and trial.state == TrialState.PRUNED:
        reason = "others were better at this rung"
    return "" if reason is None else f": {reason}"
