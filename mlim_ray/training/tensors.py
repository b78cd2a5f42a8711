"""A numpy batch on the device, as the model takes it.

Legend: B records, N image cells, T token positions, H and W pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlim_ray.training.batch import Batch


class BatchTensors(NamedTuple):
    """The inputs of the model and the mode of each record."""

    pixels_B3HW: Tensor
    """float32 in [0, 1]"""
    token_ids_BT: Tensor
    token_present_BT: Tensor
    cell_hidden_BN: Tensor
    token_hidden_BT: Tensor
    mode_B: Tensor


def to_tensors(batch: Batch, device: torch.device) -> BatchTensors:
    """Move a batch to the device; padding that no record needs is cut off, which changes no output."""
    num_positions = int(batch.num_tokens_B.max(initial=1))

    def moved(array: np.ndarray) -> Tensor:
        # Arrays that lie in shared memory are read-only, which torch warns about; those are copied.
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device, non_blocking=True)

    positions = np.arange(num_positions)[None]
    return BatchTensors(
        pixels_to_float(moved(batch.pixels_BHW3)),
        moved(batch.token_ids_BT[:, :num_positions].astype(np.int64)),
        moved(positions < batch.num_tokens_B[:, None]),
        moved(batch.cell_hidden_BN),
        moved(batch.token_hidden_BT[:, :num_positions]),
        moved(batch.mode_B.astype(np.int64)),
    )


def pixels_to_float(pixels_BHW3: Tensor) -> Tensor:
    """Stored pixels uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1]."""
    return pixels_BHW3.permute(0, 3, 1, 2).float().div_(255.0).contiguous()
