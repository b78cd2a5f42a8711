"""The model's arguments from those that users give by the names they know from transformers.

Legend: B records, N cells, T token positions, H, W pixels.
"""

import torch
from torch import Tensor

from mlim_ray.model.mlim import MlimModel

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""of `MlimModel.encode`"""


def named_inputs(
    model: MlimModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    pixel_values: Tensor | None = None,
    bool_masked_pos: Tensor | None = None,
) -> Arguments:
    """The arguments of `MlimModel.encode`.

    Args:
        model: that takes them.
        input_ids: int64 [B, T]; a hidden piece is [MASK], which is what pre-training puts in its place.
        attention_mask: [B, T], 0 at padding; all are present by default.
        pixel_values: float [B, 3, H, W] in [0, 1]; without it the picture is hidden.
        bool_masked_pos: bool [B, N], cells to hide, in row-major order; none by default.

    Raises:
        ValueError: an input has a shape that the model does not take.
    """
    shape = model.config
    num_records, num_tokens = input_ids.shape
    size, num_cells = shape.image_size, shape.num_cells
    if num_tokens > shape.max_tokens:
        raise ValueError(
            f"input_ids has {num_tokens} positions and the model takes at most {shape.max_tokens}; its processor cuts "
            "texts to that"
        )
    present_BT = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
    weight = model.word_embeddings.weight
    if pixel_values is None:
        pixel_values = torch.zeros(num_records, 3, size, size, device=input_ids.device)
        bool_masked_pos = torch.ones(num_records, num_cells, dtype=torch.bool, device=input_ids.device)
    elif pixel_values.shape != (num_records, 3, size, size):
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)} and the model takes {(num_records, 3, size, size)} "
            "with these input_ids; its processor makes both"
        )
    if bool_masked_pos is None:
        bool_masked_pos = torch.zeros(num_records, num_cells, dtype=torch.bool, device=input_ids.device)
    elif bool_masked_pos.shape != (num_records, num_cells):
        raise ValueError(
            f"bool_masked_pos has shape {tuple(bool_masked_pos.shape)}; expected {(num_records, num_cells)}, one value "
            "for each cell of each picture"
        )
    hidden_BT = present_BT & (input_ids == shape.mask_token_id)
    return pixel_values.to(weight.dtype), input_ids, present_BT, bool_masked_pos.bool(), hidden_BT
