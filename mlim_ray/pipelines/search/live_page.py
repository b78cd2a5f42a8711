"""The page of a search under way, written anew as its trials move on."""

import os
import time
from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config import SearchRunConfig
from mlim_ray.pipelines.search.conclusion import commands, search_of
from mlim_ray.pipelines.search.importance import knob_importance
from mlim_ray.pipelines.search.results import trial_result
from mlim_ray.reporting.search_figures import Phase
from mlim_ray.reporting.search_page import render_search_page
from mlim_ray.training.run_folder import RunFolder

_LEAST_PAUSE_S = 5.0
_MOST_SHARE = 0.02
"""of the driver's time: a page has megabytes, and trials may take a second each"""


class LivePage:
    """Writes `report.html` after a rung, unless it was written just before: `page.update(study.trials(), "searching")`.

    Args:
        folder: of the search, with its `environment.json`.
        config: of the search, resolved.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, folder: RunFolder, config: SearchRunConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._config = config
        self._environment = folder.read_json("environment.json")
        self._clock = clock
        self._due = clock()
        self._phase: Phase | None = None

    def update(self, trials: Sequence[FrozenTrial], phase: Phase) -> None:
        """Write the page where it is due, or where the search enters another phase.

        Args:
            trials: of the search, not of its confirmation.
            phase: which of the two runs.
        """
        started = self._clock()
        if started < self._due and phase == self._phase:
            return
        self._phase = phase
        objectives = self._config.search.objectives
        found = search_of(
            self._config,
            [trial_result(trial, objectives) for trial in trials if trial.state != TrialState.WAITING],
            importance=knob_importance(trials, objectives),
            phase=phase,
        )
        page = render_search_page(
            title=os.path.basename(self._folder.path),
            folder=self._folder.path,
            config=self._config.model_dump(mode="json"),
            environment=self._environment,
            search=found,
            commands=commands(self._folder),
        )
        self._folder.write_text("report.html", page)
        ended = self._clock()
        self._due = ended + max(_LEAST_PAUSE_S, (ended - started) / _MOST_SHARE)
