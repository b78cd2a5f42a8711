"""Text-attentive masking: which cells are hidden follows from the title (after SemMIM and SyCoCa).

A cell that has nothing to do with the title cannot be told from it, so hiding it teaches little about the title. The
model is shown the whole record, without a gradient, and hides the cells whose states are most like the mean of the
words' states: as many as the policy drew for the record, so that targets are known before the pass (contract C3).
Cells that were drawn by chance gain something, or the same ones would be hidden whenever the record comes.

Masks so depend on the weights as well, which a checkpoint has, and resuming stays exact. With another number of
workers sums are rounded differently, and where two cells are alike to the last digits another one may be hidden.

Legend: B records, N cells, T token positions, D width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mlim_ray.config import MaskingConfig, TextAttentiveConfig
from mlim_ray.model import MlimModel
from mlim_ray.model.layout import Layout
from mlim_ray.objectives.inputs import BatchTensors

CellChoice = Callable[[MlimModel, BatchTensors], BatchTensors]
"""Gives the batch with the cells hidden that are to be."""


def cell_choice(masking: MaskingConfig) -> CellChoice:
    """What a policy leaves to be chosen by the model: nothing, unless the title guides."""
    if isinstance(masking, TextAttentiveConfig):
        return TextAttentive(masking.chance_weight)
    return as_drawn


def as_drawn(model: MlimModel, inputs: BatchTensors) -> BatchTensors:
    """The batch as it is."""
    return inputs


class TextAttentive:
    """Hides the cells that go with the title.

    Args:
        chance_weight: what a cell gains that was drawn by chance, in standard deviations of likeness.
    """

    def __init__(self, chance_weight: float) -> None:
        self._chance_weight = chance_weight

    @torch.no_grad()
    def __call__(self, model: MlimModel, inputs: BatchTensors) -> BatchTensors:
        """The batch with as many cells hidden in every record, and its layout."""
        likeness_BN = likeness_of_cells(model, inputs)
        deviation_B1 = likeness_BN.std(1, correction=0, keepdim=True).clamp_min(1e-6)
        wish_BN = (likeness_BN - likeness_BN.mean(1, keepdim=True)) / deviation_B1
        wish_BN = wish_BN + self._chance_weight * inputs.cell_hidden_BN
        rank_BN = wish_BN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        cell_hidden_BN = rank_BN < inputs.cell_hidden_BN.sum(1, keepdim=True)
        layout = Layout.of(inputs.token_present_BT, cell_hidden_BN, inputs.token_hidden_BT)
        return inputs._replace(cell_hidden_BN=cell_hidden_BN, layout=layout)


def likeness_of_cells(model: MlimModel, inputs: BatchTensors) -> Tensor:
    """Cosine [B, N] of each cell's state to the mean state of the title, nothing hidden."""
    states = model.encode(
        inputs.pixels_B3HW,
        inputs.token_ids_BT,
        inputs.token_present_BT,
        torch.zeros_like(inputs.cell_hidden_BN),
        torch.zeros_like(inputs.token_hidden_BT),
    )
    # States at padding are zero, and a cosine does not depend on a length.
    title_BD = states.tokens_BTD.float().sum(1)
    return F.cosine_similarity(states.cells_BND.float(), title_BD[:, None], dim=2)
