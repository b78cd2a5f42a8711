"""Masked language modelling: the hidden pieces from the visible words and cells (MLIM, as in BERT).

Legend: B records, T token positions, M hidden pieces of the batch, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mlim_ray.objectives.terms import LossTerms


def mlm_terms(logits_MV: Tensor, token_ids_BT: Tensor, token_hidden_BT: Tensor) -> LossTerms:
    """Negative log-likelihood in nats of each hidden piece; `logits_MV` in row-major order of the hidden ones."""
    nll_M = F.cross_entropy(logits_MV.float(), token_ids_BT[token_hidden_BT], reduction="none")
    record_M = token_hidden_BT.nonzero()[:, 0]
    sum_B = torch.zeros(len(token_ids_BT), device=nll_M.device).index_add(0, record_M, nll_M)
    return LossTerms(sum_B, token_hidden_BT.sum(1).float())
