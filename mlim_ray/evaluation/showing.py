"""Which side of a record a model is shown: its picture, its text, or both. What is not shown is hidden as in
pre-training, by the [MASK] embedding.

Legend: B records, N cells, T token positions, D width.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.data.records import Records
from mlim_ray.model import MlimModel, MlimStates
from mlim_ray.model.pooling import pooled_states
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.objectives.itc import NUM_UNSHOWN_PIECES
from mlim_ray.training.batch import Batch
from mlim_ray.training.tensors import to_tensors

Shown = Literal["image", "text", "both"]
SHOWN: tuple[Shown, ...] = ("image", "text", "both")


def shown_batch(records: Records, shown_B: NDArray[np.str_] | Shown, num_cells: int) -> Batch:
    """Records with the sides that `shown_B` names, one name for all or one for each; nothing else is hidden.

    A text that is not shown leaves no trace: whatever it is, the same number of hidden pieces stands for it.
    """
    num_records = len(records.key_hash_R)
    shown_B = np.broadcast_to(np.asarray(shown_B), num_records)
    token_ids_BT, num_tokens_B = records.token_ids_RT.copy(), records.num_tokens_R.copy()
    token_hidden_BT = np.zeros(token_ids_BT.shape, bool)
    unshown = np.flatnonzero(shown_B == "image")
    num_pieces = min(NUM_UNSHOWN_PIECES, token_ids_BT.shape[1] - 2)
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
    """One state [B, D] for each record, of the sides that are shown, as `pooled_states` says."""
    return pooled_states(
        states.cells_BND, states.tokens_BTD, inputs.token_present_BT, inputs.cell_hidden_BN, inputs.token_hidden_BT
    )


def encode_pooled(model: MlimModel, records: Records, shown_B: NDArray[np.str_] | Shown) -> Tensor:
    """The pooled states [B, D] of one batch; differentiable where gradients are on."""
    inputs = to_tensors(shown_batch(records, shown_B, model.config.num_cells), model.device)
    return pooled(model.encode(*inputs[:5]), inputs)
