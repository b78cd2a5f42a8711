"""Which side of a record a model is shown: its picture, its text, or both. What is not shown is hidden as in
pre-training, by the [MASK] embedding.

Legend: B records, N cells, T token positions, D width.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.data.records import Records
from mlim_ray.model import MlimModel, MlimStates
from mlim_ray.training.batch import Batch
from mlim_ray.training.tensors import BatchTensors, to_tensors

Shown = Literal["image", "text", "both"]
SHOWN: tuple[Shown, ...] = ("image", "text", "both")
_NUM_UNSHOWN_PIECES = 8
"""in place of any text that is not shown (our choice): as many as it has would tell its length, which on real titles
tells labels"""


def shown_batch(records: Records, shown_B: NDArray[np.str_] | Shown, num_cells: int) -> Batch:
    """Records with the sides that `shown_B` names, one name for all or one for each; nothing else is hidden.

    A text that is not shown leaves no trace: whatever it is, the same number of hidden pieces stands for it.
    """
    num_records = len(records.key_hash_R)
    shown_B = np.broadcast_to(np.asarray(shown_B), num_records)
    token_ids_BT, num_tokens_B = records.token_ids_RT.copy(), records.num_tokens_R.copy()
    token_hidden_BT = np.zeros(token_ids_BT.shape, bool)
    unshown = np.flatnonzero(shown_B == "image")
    num_pieces = min(_NUM_UNSHOWN_PIECES, token_ids_BT.shape[1] - 2)
    separator = token_ids_BT[unshown, num_tokens_B[unshown] - 1]
    token_hidden_BT[unshown, 1 : num_pieces + 1] = True
    token_ids_BT[unshown, num_pieces + 1] = separator
    num_tokens_B[unshown] = num_pieces + 2
    return Batch(
        records.key_hash_R,
        np.zeros(num_records, np.int64),
        records.pixels_RHW3,
        token_ids_BT,
        num_tokens_B,
        np.zeros(num_records, np.int8),
        np.repeat((shown_B == "text")[:, None], num_cells, 1),
        token_hidden_BT,
    )


def pooled(states: MlimStates, inputs: BatchTensors) -> Tensor:
    """One state [B, D] for each record: the mean over the cells where the picture is shown, over the tokens where the
    text is, and the mean of the two where both are, so that neither outweighs the other by its number (our choice)."""
    present_BT1 = inputs.token_present_BT[:, :, None]
    cells_BD = states.cells_BND.mean(1)
    tokens_BD = (states.tokens_BTD * present_BT1).sum(1) / present_BT1.sum(1).clamp_min(1)
    image_B1 = ~inputs.cell_hidden_BN.all(1)[:, None]
    # A text without a visible word shows nothing, as one whose words are all hidden.
    specials_B = inputs.token_present_BT.sum(1).clamp_max(2)
    text_B1 = ((inputs.token_present_BT & ~inputs.token_hidden_BT).sum(1) > specials_B)[:, None]
    share_B1 = image_B1.float() / (image_B1.float() + text_B1.float()).clamp_min(1.0)
    # With neither side shown the cells stand for the record.
    share_B1 = torch.where(image_B1 | text_B1, share_B1, 1.0)
    return share_B1 * cells_BD + (1.0 - share_B1) * tokens_BD


def encode_pooled(model: MlimModel, records: Records, shown_B: NDArray[np.str_] | Shown) -> Tensor:
    """The pooled states [B, D] of one batch; differentiable where gradients are on."""
    inputs = to_tensors(shown_batch(records, shown_B, model.config.num_cells), model.device)
    return pooled(model.encode(*inputs[:5]), inputs)
