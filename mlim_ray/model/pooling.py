"""One state for a record.

Legend: B records, N cells, T token positions, D width.
"""

import torch
from torch import Tensor


def pooled_states(
    cells_BND: Tensor, tokens_BTD: Tensor, token_present_BT: Tensor, cell_hidden_BN: Tensor, token_hidden_BT: Tensor
) -> Tensor:
    """The mean [B, D] over the cells where the picture is shown, over the tokens where the text is, and the mean of
    the two where both are, so that neither outweighs the other by its number (our choice)."""
    present_BT1 = token_present_BT[:, :, None]
    cells_BD = cells_BND.mean(1)
    tokens_BD = (tokens_BTD * present_BT1).sum(1) / present_BT1.sum(1).clamp_min(1)
    image_B1 = ~cell_hidden_BN.all(1)[:, None]
    # A text without a visible word shows nothing, as one whose words are all hidden.
    specials_B = token_present_BT.sum(1).clamp_max(2)
    text_B1 = ((token_present_BT & ~token_hidden_BT).sum(1) > specials_B)[:, None]
    share_B1 = image_B1.float() / (image_B1.float() + text_B1.float()).clamp_min(1.0)
    # With neither side shown the cells stand for the record.
    share_B1 = torch.where(image_B1 | text_B1, share_B1, 1.0).to(cells_BD.dtype)
    return share_B1 * cells_BD + (1.0 - share_B1) * tokens_BD
