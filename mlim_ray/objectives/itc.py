"""Contrastive alignment of pictures and titles: InfoNCE both ways (CLIP; MaskVLM; MLIM does without).

Each side goes through the encoder alone, the other hidden behind [MASK] as in pre-training, and a projection of its
pooled state is compared with those of the other side of the batch.

Negatives are the global batch's, whatever the number of workers, for the projections of all are gathered. Where a
worker's share is computed in parts (`train.micro_batch_size`) they are those of the part alone: the loss then depends
on the size of a part and on the number of workers.

Open: MaskVLM's momentum queue, and a learnt temperature.

Legend: B records, C candidates, N cells, T token positions, D width, E width of the common space.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mlim_ray.config import ItcConfig
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.model.pooling import pooled_states
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.terms import LossTerms

NUM_UNSHOWN_PIECES = 8
"""hidden pieces in place of any text that is not shown (our choice): as many as it has would tell its length, which on
real titles tells labels"""


class Itc(Objective):
    """Cross-entropy in nats of the own title among all and of the own picture among all, averaged; the targets counted
    are records."""

    needs_peers = True

    def __init__(self, config: ItcConfig, shape: MlimConfig) -> None:
        super().__init__("itc", config.weight)
        self._temperature = config.temperature
        self.projections = nn.ModuleDict(
            {side: nn.Linear(shape.hidden_size, config.width, bias=False) for side in ("image", "text")}
        )

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Records."""
        return len(cell_hidden_BN)

    def forward(self, passed: Pass) -> LossTerms:
        """Of each record."""
        assert passed.peers is not None, "asked for"
        peers, inputs = passed.peers, passed.inputs
        image_BE, text_BE = (self.embed(passed.model, inputs, side) for side in ("image", "text"))
        both_CE, row_C = peers.gather(torch.cat([image_BE, text_BE], 1))
        images_CE, texts_CE = both_CE.chunk(2, 1)
        own_BC = row_C == peers.row_B[:, None]
        # Records that share a title are no wrong pairs of each other.
        same_BC = (peers.token_ids_GT[peers.row_B][:, None] == peers.token_ids_GT[row_C][None]).all(2)
        left_out_BC = same_BC & ~own_BC
        to_texts_B = info_nce(image_BE, texts_CE, own_BC, left_out_BC, self._temperature)
        to_images_B = info_nce(text_BE, images_CE, own_BC, left_out_BC, self._temperature)
        return LossTerms((to_texts_B + to_images_B) / 2, torch.ones_like(to_texts_B))

    def embed(self, model: MlimModel, inputs: BatchTensors, side: Literal["image", "text"]) -> Tensor:
        """Embeddings [B, E] of length 1 of one side, shown alone."""
        cell_hidden_BN = torch.full_like(inputs.cell_hidden_BN, side == "text")
        text = inputs.token_ids_BT, inputs.token_present_BT, torch.zeros_like(inputs.token_present_BT)
        token_ids_BT, present_BT, token_hidden_BT = text if side == "text" else _no_text(*text[:2], model.config)
        states = model.encode(inputs.pixels_B3HW, token_ids_BT, present_BT, cell_hidden_BN, token_hidden_BT)
        pooled_BD = pooled_states(states.cells_BND, states.tokens_BTD, present_BT, cell_hidden_BN, token_hidden_BT)
        return F.normalize(self.projections[side](pooled_BD).float(), dim=1)


def info_nce(own_BE: Tensor, others_CE: Tensor, own_BC: Tensor, left_out_BC: Tensor, temperature: float) -> Tensor:
    """Negative log-probability [B] of the own one among all that are not left out; embeddings have length 1.

    A record without an own one, as a worker without records has, gives 0.
    """
    with torch.autocast(own_BE.device.type, enabled=False):
        similarity_BC = (own_BE @ others_CE.T / temperature).masked_fill(left_out_BC, -torch.inf)
    return -similarity_BC.log_softmax(1).masked_fill(~own_BC, 0.0).sum(1)


def _no_text(token_ids_BT: Tensor, present_BT: Tensor, shape: MlimConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, presence and hidden positions of a text that is not shown and leaves no trace, not its length either."""
    num_pieces = min(NUM_UNSHOWN_PIECES, shape.max_tokens - 2)
    separator_B1 = token_ids_BT.gather(1, present_BT.sum(1, keepdim=True).clamp_min(1) - 1)
    pieces = token_ids_BT.new_zeros(len(token_ids_BT), num_pieces)
    ids = torch.cat([token_ids_BT[:, :1], pieces, separator_B1], 1)
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    hidden[:, 1:-1] = True
    return ids, torch.ones_like(hidden), hidden
