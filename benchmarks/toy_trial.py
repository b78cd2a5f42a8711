"""A trial that trains nothing: what a search costs by itself, through the same searcher, scheduler and study."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from ray import tune

from mlim_ray.pipelines.search.trial_words import NUMBER, PARAMETERS, tune_result


class ToyTrial(tune.Trainable):
    """One step goes to the next rung, in its share of the seconds that a whole trial takes."""

    def setup(self, config: dict[str, Any], rungs: list[int], seconds: float) -> None:
        """Called once a process."""
        self._rungs, self._seconds = rungs, seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process."""
        self._number, self._parameters = new_config[NUMBER], new_config[PARAMETERS]
        self._place = 0
        return True

    def step(self) -> dict[str, Any]:
        """A score that falls with the samples, to a limit that the parameters decide."""
        samples = self._rungs[self._place]
        before = self._rungs[self._place - 1] if self._place else 0
        time.sleep(self._seconds * (samples - before) / self._rungs[-1])
        self._place += 1
        score = toy_score(self._parameters, samples)
        measures = {"probe": score, "mlm": score, "recon": score}
        return tune_result(samples, score, measures) | {"done": samples == self._rungs[-1]}

    def __repr__(self) -> str:
        return "ToyTrial"


def toy_score(parameters: Mapping[str, Any], samples: int) -> float:
    """Lowest where every ratio is 0.3 and every weight 10."""
    numbers = [float(value) for value in parameters.values() if isinstance(value, float)]
    limit = sum((math.log10(value) - 1 if value >= 1 else value - 0.3) ** 2 for value in numbers if value > 0)
    return limit + 1.0 / math.sqrt(samples)
