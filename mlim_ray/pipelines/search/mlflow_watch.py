"""A search told to an MLflow server while it goes on: one run for the search, and below it one for each trial.

The study stays the only truth: MLflow is told what the study and the trials' metrics have, and of a search that is
resumed only what it lacks. It is told in a thread of its own, so that no trial waits for a slow server; where the
server is away, that is said once, and all is told once it is back.
"""

import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.score import rank_score
from mlim_ray.data.storage_error import StorageError
from mlim_ray.pipelines.search.mlflow_server import RUNNING, MlflowServer, Point
from mlim_ray.pipelines.search.study import parameters_of, reason_of, role_of, rungs_of, seed_of
from mlim_ray.pipelines.search.trial_job import trial_folder
from mlim_ray.pipelines.search.trial_label import TrialLabel
from mlim_ray.reporting.search_table import WORDS
from mlim_ray.training.metrics import read_metrics
from mlim_ray.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

SCORE, SAMPLES = "score", "samples"
_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
_STOPPED = "KILLED"
_END_WITHIN_S = 60.0
_NOTE, _PAGE, _STATE, _REASON = "mlflow.note.content", "page", "state", "reason"


@dataclass(frozen=True)
class _Told:
    """What is to be told of a trial."""

    label: TrialLabel
    rungs: dict[int, dict[str, float]]
    state: TrialState
    reason: str | None


@dataclass
class _Known:
    """What the server has of a trial."""

    run: str
    line_samples: int
    rung_samples: int
    has_ended: bool = False


class MlflowWatch:
    """Tells a server of a search until the block ends: `watch.update(kind, study.trials())`, and `conclude` at last.

    Args:
        server: that is told.
        folder: of the search.
        study: name of the search's study, which no other search has.
        config: of the search, resolved.
    """

    def __init__(self, server: MlflowServer, folder: RunFolder, study: str, config: SearchRunConfig) -> None:
        self._server = server
        self._folder = folder
        self._study = study
        self._config = config
        self._lock = threading.Lock()
        self._trials: dict[str, dict[int, _Told]] = {}
        self._conclusion: Mapping[str, Any] | None = None
        self._search_run: str | None = None
        self._known: dict[str, _Known] = {}
        self._due = threading.Event()
        self._has_ended = False
        self._is_away = False
        self._thread = threading.Thread(target=self._tell_until_the_end, name="mlflow", daemon=True)

    def update(self, kind: str, trials: Sequence[FrozenTrial]) -> None:
        """How all trials of a kind stand."""
        told = {trial.number: _told(kind, trial) for trial in trials if trial.state.name in WORDS}
        with self._lock:
            self._trials[kind] = told
        self._due.set()

    def conclude(self, evaluation: Mapping[str, Any]) -> None:
        """What the search found, as its `evaluation.json` has it."""
        with self._lock:
            self._conclusion = evaluation

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended = True
        self._due.set()
        self._thread.join(_END_WITHIN_S)
        if self._thread.is_alive() or self._is_away:
            logger.warning("MLflow at %s lacks the end of the search; all of it is in the run folder", self._server.url)

    def _tell_until_the_end(self) -> None:
        has_ended = False
        while not has_ended:
            self._due.wait()
            self._due.clear()
            has_ended = self._has_ended
            try:
                self._tell(has_ended=has_ended)
                self._is_away = False
            except (self._server.failure, StorageError) as failure:
                if not self._is_away:
                    logger.warning(
                        "MLflow at %s is told nothing for now, the search goes on: %s",
                        self._server.url,
                        str(failure).splitlines()[0],
                    )
                self._is_away = True

    def _tell(self, *, has_ended: bool) -> None:
        """Bring the server up to date."""
        with self._lock:
            trials, conclusion = dict(self._trials), self._conclusion
        if self._search_run is None:
            self._search_run = self._begin_search()
        for told in [told for of_kind in trials.values() for told in of_kind.values()]:
            self._tell_trial(self._search_run, told)
        if has_ended:
            self._end(self._search_run, conclusion)

    def _begin_search(self) -> str:
        environment = self._folder.read_json("environment.json")
        page = self._folder.file("report.html")
        tags = {"data": str(environment["data"]), _PAGE: page, _NOTE: f"Page of the search: `{page}`"}
        params = dict(_flat(self._config.model_dump(mode="json")))
        run, status, _ = self._server.run(self._study, self._folder.path.rpartition("/")[2], None, tags, params)
        if status != RUNNING:
            self._server.set_status(run, RUNNING)
        return run

    def _tell_trial(self, search_run: str, told: _Told) -> None:
        label = told.label
        known = self._known.get(label.name)
        if known is None:
            tags = {"role": label.role, "policy": label.policy, _PAGE: self._folder.file("report.html")}
            params = {"seed": label.seed, **label.parameters}
            run, status, found = self._server.run(f"{self._study}/{label.name}", label.name, search_run, tags, params)
            last_line, last_rung = (self._server.last_samples(run, name) for name in (SAMPLES, SCORE))
            # Not by its status: a stopped search leaves the trials that ran as it leaves those that were pruned.
            known = self._known[label.name] = _Known(run, last_line, last_rung, has_ended=_STATE in found)
            if not known.has_ended and status != RUNNING:
                self._server.set_status(run, RUNNING)
        if known.has_ended:
            return
        points = [*self._line_points(label, known.line_samples), *self._rung_points(told, known.rung_samples)]
        self._server.add(known.run, points)
        known.line_samples = max([known.line_samples, *(each.samples for each in points if each.name == SAMPLES)])
        known.rung_samples = max([known.rung_samples, *told.rungs])
        if told.state.is_finished():
            self._server.set_status(known.run, _STATUS[told.state])
            reason = {} if told.reason is None else {_REASON: told.reason}
            self._server.tag(known.run, {**reason, _STATE: WORDS[told.state.name]})
            known.has_ended = True

    def _line_points(self, label: TrialLabel, after: int) -> Iterator[Point]:
        """What a trial logged since then, by samples: trials with batches of other sizes share that axis."""
        for line in read_metrics(trial_folder(self._folder.path, label.kind, label.number).path):
            if line[SAMPLES] > after:
                for name, value in line.items():
                    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                        yield Point(name, float(value), line[SAMPLES])

    def _rung_points(self, told: _Told, after: int) -> Iterator[Point]:
        for samples, measures in sorted(told.rungs.items()):
            if samples > after:
                score = rank_score(self._config.search.objectives, measures)
                figures = {SCORE: score, **{f"{SCORE}/{name}": value for name, value in measures.items()}}
                yield from (Point(name, value, samples) for name, value in figures.items() if math.isfinite(value))

    def _tell_conclusion(self, search_run: str, evaluation: Mapping[str, Any]) -> None:
        best, page = evaluation["best"], self._folder.file("report.html")
        sentences = "\n".join(f"- {sentence}" for sentence in evaluation["verdict"])
        self._server.tag(
            search_run,
            {
                "best trial": str(best["trial"]),
                "best config": str(best["config"]),
                _NOTE: f"Page of the search: `{page}`\n\n{sentences}",
            },
        )
        samples = self._config.search.max_samples
        points = [Point("best score", best[SCORE], samples)]
        if evaluation["confirmation"] is not None:
            leader = evaluation["confirmation"]["arms"][0]
            figures = {"mean": leader["mean"], "low": leader["interval"][0], "high": leader["interval"][1]}
            points += [Point(f"confirmed/{name}", value, samples) for name, value in figures.items()]
        self._server.add(search_run, points)

    def _end(self, search_run: str, conclusion: Mapping[str, Any] | None) -> None:
        """The search has ended, or stops here: then what ran does not, until somebody resumes it."""
        if conclusion is not None:
            self._tell_conclusion(search_run, conclusion)
        for known in self._known.values():
            if not known.has_ended:
                self._server.set_status(known.run, _STOPPED)
        self._server.set_status(search_run, _STOPPED if conclusion is None else _STATUS[TrialState.COMPLETE])


def _told(kind: str, trial: FrozenTrial) -> _Told:
    label = TrialLabel(kind, trial.number, role_of(trial), seed_of(trial), parameters_of(trial))
    return _Told(label, rungs_of(trial), trial.state, reason_of(trial))


def _flat(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A config's knobs by their names, such as `train.batch_size`."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
