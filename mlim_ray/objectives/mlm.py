"""Masked language modelling: the hidden pieces from the visible words and cells (MLIM, as in BERT).

Legend: B records, T token positions, M hidden pieces of the batch, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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
