"""What keeps the experts of a mixture in use (after EVE): the encoder's balance loss of the masked pass.

Source: EVE's code for fine-tuning (weight 0.001); the loss itself is Switch's, see `mlim_ray.model.encoders.mixture`.

Legend: B records, N cells, T token positions.
"""

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import BalanceConfig
from mlim_ray.model import MlimConfig
from mlim_ray.model.encoders import balance_of
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.terms import LossTerms


class ExpertBalance(Objective):
    """1 where all experts are used alike; the targets counted are the mixture layers of each record.

    It has to come before objectives with passes of their own, which leave another balance.
    """

    def __init__(self, config: BalanceConfig, shape: MlimConfig) -> None:
        super().__init__("balance", config.weight)
        self._num_layers = shape.num_mixture_layers

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Mixture layers of all records: every record has cells, which go through each."""
        return len(cell_hidden_BN) * self._num_layers

    def forward(self, passed: Pass) -> LossTerms:
        """Of each record."""
        return LossTerms(*balance_of(passed.model.encoder))
