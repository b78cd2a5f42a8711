"""What a trained model attends to.

Legend: B records, N cells, T token positions, S = N + T, H heads or pixels, W pixels, D width, P rows of the batch.
"""

from typing import Any

import torch
from torch import Tensor

from mlim_ray.model.encoder import SelfAttention
from mlim_ray.model.layout import Layout
from mlim_ray.model.mlim import MlimModel


@torch.inference_mode()
def last_attention(
    model: MlimModel,
    pixels_B3HW: Tensor,
    token_ids_BT: Tensor,
    token_present_BT: Tensor,
    cell_hidden_BN: Tensor,
    token_hidden_BT: Tensor,
) -> Tensor:
    """The last layer's attention [B, H, S, S] from each position (second to last) to each (last), cells first.

    Exact: from the queries and keys of the pass itself. At padding, rows mean nothing and columns are 0.

    The model has to be in evaluation mode; the other arguments are those of `MlimModel.encode`.
    """
    found: list[Tensor] = []

    def see(attention: SelfAttention, given: tuple[Any, ...]) -> None:
        x_PD, layout, _ = given
        assert isinstance(layout, Layout)
        found.append(attention.weights(x_PD, layout))

    last: Any = model.encoder.layers[-1]
    handle = last.attention.register_forward_pre_hook(see)
    try:
        model.encode(pixels_B3HW, token_ids_BT, token_present_BT, cell_hidden_BN, token_hidden_BT)
    finally:
        handle.remove()
    return found[0]
