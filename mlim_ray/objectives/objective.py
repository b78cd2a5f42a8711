"""What an objective is: a loss, the targets it counts, and what it trains beside the model.

Legend: B records, N cells, T token positions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mlim_ray.model import MlimModel
from mlim_ray.model.mlim import TargetStates
from mlim_ray.objectives.inputs import BatchTensors, Peers
from mlim_ray.objectives.terms import LossTerms


class Pass(NamedTuple):
    """One masked pass of the model."""

    model: MlimModel
    inputs: BatchTensors
    states: TargetStates
    peers: Peers | None
    """given where an objective asks for them"""


class Objective(nn.Module):
    """One loss. Its parameters are trained with the model's and kept beside them in checkpoints, not in the exported
    model; its buffers are kept too, and are each worker's own.

    Args:
        name: its losses are logged as `loss/<name>`.
        weight: of its mean in the total loss.
    """

    needs_peers = False
    """whether it compares records of a batch"""

    def __init__(self, name: str, weight: float) -> None:
        super().__init__()
        self.name = name
        self.weight = weight

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Targets of a worker's share, known from its masks before anything is computed (contract C3)."""
        raise NotImplementedError

    def forward(self, passed: Pass) -> LossTerms:
        """Sums and counts of each record; the counts add up to `num_targets`."""
        raise NotImplementedError

    def begin(self, model: MlimModel) -> None:
        """Called once, before the run's first step, with the weights that it starts from."""

    def after_step(self, model: MlimModel) -> None:
        """Called after every update of the weights, on every worker."""
