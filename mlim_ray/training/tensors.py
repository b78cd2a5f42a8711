"""A numpy batch on the device, as the model takes it.

Legend: B records, N image cells, T token positions, H and W pixels.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.model.layout import Layout
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Batch


def to_tensors(batch: Batch, device: torch.device) -> BatchTensors:
    """Move a batch to the device; padding that no record needs is cut off, which changes no output.

    Copies to a GPU are made from pinned memory and are not waited for; what is computed from them there, on the same
    stream, comes after them.
    """
    num_positions = int(batch.num_tokens_B.max(initial=1))

    def moved(tensor: Tensor) -> Tensor:
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    present_BT = torch.from_numpy(np.arange(num_positions)[None] < batch.num_tokens_B[:, None])
    cell_hidden_BN = _writable(batch.cell_hidden_BN)
    token_hidden_BT = _writable(batch.token_hidden_BT[:, :num_positions])
    layout = Layout.of(present_BT, cell_hidden_BN, token_hidden_BT)
    return BatchTensors(
        pixels_to_float(moved(_writable(batch.pixels_BHW3))),
        moved(torch.from_numpy(batch.token_ids_BT[:, :num_positions].astype(np.int64))),
        moved(present_BT),
        moved(cell_hidden_BN),
        moved(token_hidden_BT),
        Layout._make(map(moved, layout)),
        moved(torch.from_numpy(batch.mode_B.astype(np.int64))),
    )


def _writable(array: NDArray[Any]) -> Tensor:
    """Arrays that lie in shared memory are read-only, which torch warns about; those are copied."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def pixels_to_float(pixels_BHW3: Tensor) -> Tensor:
    """Stored pixels uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1]."""
    return pixels_BHW3.permute(0, 3, 1, 2).float().div_(255.0).contiguous()
