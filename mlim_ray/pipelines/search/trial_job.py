"""What trials are told, and where they keep what they find."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlim_ray.config import SearchRunConfig
from mlim_ray.config.score import rank_score
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.evaluation.measures import Measurer
from mlim_ray.pipelines.search.trial_words import tune_result
from mlim_ray.training.run_folder import RunFolder

if TYPE_CHECKING:
    import ray

TRIALS, CONFIRMATION = "trials", "confirm"
"""Kinds of trials: those of the search, and those that run the best again."""

Entry = tuple[int, dict[str, float]]
"""samples at a rung, and the measures there by name"""


@dataclass(frozen=True)
class TrialJob:
    """All that every trial of a search shares."""

    config: SearchRunConfig
    prepared: PreparedSet
    search: str
    """folder of the search"""
    kind: str
    """folder in it that the trials are kept in"""
    num_threads: int
    """of each worker"""
    resident: "ray.ObjectRef[Records] | None"
    """the training split in shared memory; None streams it"""
    measurer: "ray.ObjectRef[Measurer]"
    """what measures a trial, in shared memory as well"""

    def result(self, entry: Entry) -> dict[str, Any]:
        """What Tune is told of a rung."""
        samples, measures = entry
        search = self.config.search
        score = rank_score(search.objectives, measures)
        return {**tune_result(samples, score, measures), "done": samples >= search.max_samples}


def trial_folder(search: str, kind: str, number: int) -> RunFolder:
    """Where a trial keeps its checkpoint and metrics."""
    return RunFolder(RunFolder(search).file(kind, f"{number:05d}"))
