"""Masked language modelling: the hidden pieces from the visible words and cells (MLIM, as in BERT).

Legend: B records, T token positions, M hidden pieces of the batch, V vocabulary.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.terms import LossTerms


def mlm_terms(
    logits_MV: Tensor, token_ids_BT: Tensor, token_hidden_BT: Tensor, hidden_token_M: Tensor | None = None
) -> LossTerms:
    """Negative log-likelihood in nats of each hidden piece; `logits_MV` in row-major order of the hidden ones.

    Where they are in the flattened [B * T] may be given (`Layout.hidden_token_M`): a GPU need not be waited for then.
    """
    if hidden_token_M is None:
        hidden_token_M = token_hidden_BT.flatten().nonzero()[:, 0]
    nll_M = F.cross_entropy(logits_MV.float(), token_ids_BT.flatten()[hidden_token_M], reduction="none")
    record_M = hidden_token_M // token_ids_BT.shape[1]
    sum_B = torch.zeros(len(token_ids_BT), device=nll_M.device).index_add(0, record_M, nll_M)
    return LossTerms(sum_B, token_hidden_BT.sum(1).float())


class Mlm(Objective):
    """MLM by the model's own head."""

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Hidden pieces."""
        return int(token_hidden_BT.sum())

    def forward(self, passed: Pass) -> LossTerms:
        """Of the hidden pieces of each record."""
        inputs = passed.inputs
        logits_MV = passed.model.mlm_logits(passed.states.pieces_MD)
        return mlm_terms(logits_MV, inputs.token_ids_BT, inputs.token_hidden_BT, inputs.layout.hidden_token_M)
