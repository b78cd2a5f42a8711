"""The other records of a global batch, for objectives that compare records.

Workers hold contiguous lanes in the order of their ranks, so rows in the order of ranks are those of a single worker.

Legend: B records, G records of the global batch, T token positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.data.counter import draw
from mlim_ray.objectives.inputs import Peers
from mlim_ray.training.batch import Batch
from mlim_ray.training.distributed import gather_objects, gather_rows, rank

_PEERS = 101
"""what a counter is drawn for; other numbers belong to masks"""


Texts = tuple[NDArray[np.int32], NDArray[np.int16]]
"""token ids [B, T] and numbers of tokens [B] of a worker's share"""


@dataclass(frozen=True)
class Meeting:
    """What workers told each other of one global batch, and this worker's share of it."""

    token_ids_GT: Tensor
    token_present_GT: Tensor
    lot_B: NDArray[np.int64]
    first: int
    """row of this worker's first record"""
    in_parts: bool
    """whether shares are computed in parts: their numbers differ from worker to worker, so nothing more is exchanged"""

    @classmethod
    def of(
        cls, batch: Batch, texts: Sequence[Texts], rank: int, seed: int, device: torch.device, *, in_parts: bool
    ) -> "Meeting":
        """From the texts of all shares, of which `batch` is that of worker `rank`."""
        ids_GT, num_tokens_G = (np.concatenate(column) for column in zip(*texts, strict=True))
        if len(ids_GT) == 0:
            ids_GT, num_tokens_G = np.zeros((1, ids_GT.shape[1]), ids_GT.dtype), np.ones(1, num_tokens_G.dtype)
        num_positions = int(num_tokens_G.max())
        present_GT = np.arange(num_positions)[None] < num_tokens_G[:, None]
        ids_GT = np.where(present_GT, ids_GT[:, :num_positions], 0).astype(np.int64)
        lot_B = draw(seed, batch.epoch_B, batch.key_hash_B, _PEERS) >> np.uint64(2)
        first = sum(len(num_tokens_B) for _, num_tokens_B in texts[:rank])
        ids, present = (torch.from_numpy(array).to(device) for array in (ids_GT, present_GT))
        return cls(ids, present, lot_B.astype(np.int64), first, in_parts)

    def peers(self, start: int, num_records: int) -> Peers:
        """Of the part of the share that begins at record `start`; 0 records: the blank one of an empty share."""
        device = self.token_ids_GT.device
        num_rows = max(1, num_records)
        row_B = self.first + start + torch.arange(num_rows, device=device)
        lot_B = np.zeros(1, np.int64) if num_records == 0 else self.lot_B[start : start + num_records]
        if num_records == 0:
            row_B = torch.zeros_like(row_B)

        def gather(rows_BD: Tensor) -> tuple[Tensor, Tensor]:
            if self.in_parts:
                return rows_BD, row_B
            num_global = len(self.token_ids_GT)
            all_GD = gather_rows(rows_BD[:num_records], self.first, num_global)
            return all_GD, torch.arange(num_global, device=device)

        return Peers(row_B, torch.from_numpy(lot_B).to(device), self.token_ids_GT, self.token_present_GT, gather)


def meet(batch: Batch, seed: int, device: torch.device, *, in_parts: bool) -> Meeting:
    """Called on every worker with its share of a batch."""
    texts: list[Texts] = gather_objects((batch.token_ids_BT, batch.num_tokens_B))
    return Meeting.of(batch, texts, rank(), seed, device, in_parts=in_parts)
