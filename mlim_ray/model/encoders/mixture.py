"""A modality-aware mixture of experts in place of a layer's feed-forward part (after EVE).

Legend: B records, S positions of a record, P rows, R the first of them, D width, E experts, K those used, X the rows of
one expert.

A gate sees a row with the learned vector of its modality added, and sends it to the K likeliest experts; their answers
are weighted by the gate (normalised over the K, as in GShard; a single one by its own probability, as in Switch, since
the gate would learn nothing otherwise). No expert turns a row away, so what else is in a batch changes no output.

Left alone, gates tend to send all rows to a few experts. `balance_of` gives what is to be added to the loss against
that: E times the sum over experts of the share of rows sent to it times its mean probability, which is 1 when all get
the same (Switch). EVE's is of a batch (its weight is 0.001); this one is of each record, so that sums over parts of a
batch and over workers add up to the global batch's (our choice).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlim_ray.model.encoder import Encoder
from mlim_ray.model.layout import Layout


class Balance(NamedTuple):
    """The balance loss of each record, as sums and counts over the mixture layers: their mean is what is added."""

    sum_B: Tensor
    """with gradient; at least nearly `count_B`, which means that all experts are used alike"""
    count_B: Tensor


class Mixture(nn.Module):
    """Experts for rows [R, D], each of two layers with a GELU between, of `expert_width` there."""

    def __init__(self, width: int, num_experts: int, num_used: int, expert_width: int) -> None:
        super().__init__()
        self.num_used = num_used
        self.modalities = nn.Embedding(2, width)
        self.gate = nn.Linear(width, num_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, expert_width), nn.GELU(), nn.Linear(expert_width, width))
            for _ in range(num_experts)
        )
        self.balance: Balance | None = None

    def forward(self, x_RD: Tensor, layout: Layout) -> Tensor:
        """The first rows [R, D]; leaves the balance loss of this pass in `balance`."""
        modality_R = (torch.arange(len(x_RD), device=x_RD.device) >= layout.num_cells).long()
        probability_RE, weight_RK, expert_RK = self.routed(x_RD, modality_R)
        self.balance = _balance(probability_RE, expert_RK, layout)
        out_RD = torch.zeros_like(x_RD)
        for number, expert in enumerate(self.experts):
            row_X, place_X = (expert_RK == number).nonzero(as_tuple=True)
            weighed_XD = expert(x_RD.index_select(0, row_X)) * weight_RK[row_X, place_X, None]
            out_RD = out_RD.index_add(0, row_X, weighed_XD.to(out_RD.dtype))
        return out_RD

    def routed(self, x_RD: Tensor, modality_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gate's probabilities [R, E] of rows, and the weights and the numbers [R, K] of the experts they go to.

        `modality_R` is 0 for cells and 1 for tokens.
        """
        probability_RE: Tensor = self.gate(x_RD + self.modalities(modality_R)).float().softmax(1)
        weight_RK, expert_RK = probability_RE.topk(self.num_used)
        if self.num_used > 1:
            weight_RK = weight_RK / weight_RK.sum(1, keepdim=True)
        return probability_RE, weight_RK, expert_RK

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model, or one that travels, has made no pass."""
        return {**self.__dict__, "balance": None}


def balance_of(encoder: Encoder) -> Balance:
    """The balance loss of the encoder's last pass, of all its mixture layers.

    Raises:
        ValueError: the encoder has no mixture, or has made no pass.
    """
    found = [module.balance for module in encoder.modules() if isinstance(module, Mixture)]
    passed = [balance for balance in found if balance is not None]
    if not passed or len(passed) < len(found):
        raise ValueError(
            f"the encoder has {len(found)} mixture layers, {len(passed)} of which have made a pass; expected at least "
            "one and all: choose --model.encoder.kind mixture, and ask after a pass"
        )
    return Balance(torch.stack([b.sum_B for b in passed]).sum(0), torch.stack([b.count_B for b in passed]).sum(0))


def _balance(probability_RE: Tensor, expert_RK: Tensor, layout: Layout) -> Balance:
    num_records, num_positions = layout.row_BS.shape
    num_experts, num_used = probability_RE.shape[1], expert_RK.shape[1]
    record_R = layout.place_P[: len(probability_RE)] // num_positions
    sent_RE = F.one_hot(expert_RK, num_experts).sum(1).to(probability_RE.dtype) / num_used
    nothing_BE = probability_RE.new_zeros(num_records, num_experts)
    num_rows_B = torch.zeros_like(nothing_BE[:, 0]).index_add(0, record_R, torch.ones_like(probability_RE[:, 0]))
    rows_B1 = num_rows_B.clamp_min(1.0)[:, None]
    sent_BE = nothing_BE.index_add(0, record_R, sent_RE) / rows_B1
    mean_BE = nothing_BE.index_add(0, record_R, probability_RE) / rows_B1
    return Balance(num_experts * (sent_BE * mean_BE).sum(1), (num_rows_B > 0).to(probability_RE.dtype))
