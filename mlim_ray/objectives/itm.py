"""Image-text matching: is the title the picture's own? (ViLT, ALBEF, M3AE-medical; MLIM does without)

Half of the records are shown the title of another record of the global batch, and a head on the pooled state tells
which. Nothing is hidden in this pass, as in ViLT. Which records, and whose titles, is a function of (seed, epoch,
record key) and of the global batch, so it is the same for any number of workers and any parts of a worker's share.

Open: MLIM's paper tells nothing of how its ITM arm was trained. ViLT's head reads [CLS]; the pooled state is our
choice.

Legend: B records, G records of the global batch, T token positions, D width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mlim_ray.config import ItmConfig
from mlim_ray.model import MlimConfig
from mlim_ray.model.pooling import pooled_states
from mlim_ray.objectives.inputs import Peers
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.terms import LossTerms

_LOTS = 1 << 20


class Itm(Objective):
    """Binary cross-entropy in nats; the targets counted are records."""

    needs_peers = True

    def __init__(self, config: ItmConfig, shape: MlimConfig) -> None:
        super().__init__("itm", config.weight)
        self._wrong_ratio = config.wrong_ratio
        self.head = nn.Linear(shape.hidden_size, 1)

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> int:
        """Records."""
        return len(cell_hidden_BN)

    def forward(self, passed: Pass) -> LossTerms:
        """Of each record, with the title that it is shown."""
        assert passed.peers is not None, "asked for"
        title_B, is_own_B = shown_titles(passed.peers, self._wrong_ratio)
        ids_BT, present_BT = passed.peers.token_ids_GT[title_B], passed.peers.token_present_GT[title_B]
        nothing_BN, nothing_BT = torch.zeros_like(passed.inputs.cell_hidden_BN), torch.zeros_like(present_BT)
        states = passed.model.encode(passed.inputs.pixels_B3HW, ids_BT, present_BT, nothing_BN, nothing_BT)
        pooled_BD = pooled_states(states.cells_BND, states.tokens_BTD, present_BT, nothing_BN, nothing_BT)
        logit_B = self.head(pooled_BD)[:, 0].float()
        loss_B = F.binary_cross_entropy_with_logits(logit_B, is_own_B.float(), reduction="none")
        return LossTerms(loss_B, torch.ones_like(loss_B))


def shown_titles(peers: Peers, wrong_ratio: float) -> tuple[Tensor, Tensor]:
    """The row [B] whose title each record is shown, and whether that title is as good as its own."""
    num_rows = len(peers.token_ids_GT)
    is_wrong_B = peers.lot_B % _LOTS < wrong_ratio * _LOTS
    distance_B = 1 + peers.lot_B // _LOTS % max(1, num_rows - 1)
    title_B = torch.where(is_wrong_B, (peers.row_B + distance_B) % num_rows, peers.row_B)
    # Listings of one product often share their title: those are no wrong pairs.
    return title_B, (peers.token_ids_GT[title_B] == peers.token_ids_GT[peers.row_B]).all(1)
