"""A trial of several workers: Tune's view of it."""

from typing import Any

from ray import tune

from mlim_ray.pipelines.resources import WorkerPlan
from mlim_ray.pipelines.search.group import TrialGroup
from mlim_ray.pipelines.search.trial_job import TrialJob
from mlim_ray.pipelines.search.trial_words import REPORTED

_HEAD_NODE = "node:__internal_head__"
_SHARE = 0.001

GROUP_TRIAL_RESOURCES = {"cpu": 0, _HEAD_NODE: _SHARE}
"""What the trial's own process takes: no CPU, since its workers have their own, and a place on the head node, which no
spot market takes away."""


class GroupTrial(tune.Trainable):
    """One step of Tune is the next rung of a trial that several workers train.

    This process trains nothing, and is reused from trial to trial; the workers are started with a trial's first rung
    and ended with the trial. Tune's checkpoints are not used, as in `PretrainTrial`.
    """

    _group: TrialGroup | None = None
    _given: int
    """samples at the last rung that Tune was told of"""

    def setup(self, config: dict[str, Any], job: TrialJob, plan: WorkerPlan) -> None:
        """Called once a process."""
        self._job, self._plan = job, plan
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next rung; without computing, where the trial's checkpoint has one that the journal may have lost."""
        if self._group is None:
            self._group = TrialGroup(self._job, self._plan, self._trial)
        entry = self._group.next_entry(self._given)
        self._given = entry[0]
        return self._job.result(entry)

    def cleanup(self) -> None:
        """End the workers."""
        self._end()

    def __repr__(self) -> str:
        # Ray reads this once a process, so it must not name the trial.
        return "GroupTrial"

    def _begin(self, trial: dict[str, Any]) -> None:
        self._trial = trial
        # The journal's last score is handed in again too: its verdict may not have been carried out.
        self._given = max(0, trial[REPORTED] - 1)

    def _end(self) -> None:
        if self._group is not None:
            group, self._group = self._group, None
            group.end()
