"""What every evaluation is given: a model, its untrained twin, and the splits of a set that it did not learn from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.manifest import Statistics
from mlim_ray.data.tokenizer import TextTokenizer
from mlim_ray.evaluation.examples import Examples
from mlim_ray.model import MlimModel

OnProgress = Callable[[str, int, int], None]
"""told what is being done, and how many steps of how many are done"""


@dataclass(frozen=True)
class Bench:
    """An evaluation never changes the models: what it trains is a copy."""

    model: MlimModel
    untrained: MlimModel
    """the same shape at a seeded start: the baseline that shows what pre-training adds"""
    tokenizer: TextTokenizer
    train: Examples
    """what heads are trained on"""
    val: Examples
    """what choices are made by"""
    test: Examples
    """what figures are of"""
    seed: int
    on_progress: OnProgress
    statistics: Statistics | None = None
    """of the set that the records come from"""
    is_generated: bool = False
    """whether they come from the generated catalogue, whose limits are known"""
    title_seen_R: NDArray[np.bool_] | None = None
    """for each record of `test` whether the model was pre-trained on a record of the same title; None: not known"""
