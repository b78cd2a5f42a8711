"""A batch on the device, as the model and the objectives take it.

Legend: B records, N image cells, T token positions, H and W pixels, G records of the global batch, D width,
C candidates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mlim_ray.model.layout import Layout


class BatchTensors(NamedTuple):
    """The inputs of the model, which are the first six, and the mode of each record."""

    pixels_B3HW: Tensor
    """float32 in [0, 1]"""
    token_ids_BT: Tensor
    token_present_BT: Tensor
    cell_hidden_BN: Tensor
    token_hidden_BT: Tensor
    layout: Layout
    mode_B: Tensor

    def tensors(self) -> Iterator[Tensor]:
        """All of them, those of the layout too."""
        for part in self:
            yield from part if isinstance(part, Layout) else (part,)


@dataclass(frozen=True)
class Peers:
    """The other records of the global batch: where an objective takes its wrong pairs from."""

    row_B: Tensor
    """each record's row in the global batch, which is the same for any number of workers"""
    lot_B: Tensor
    """a number from 0 to 2^62, drawn from (seed, epoch, record key)"""
    token_ids_GT: Tensor
    token_present_GT: Tensor
    gather: Callable[[Tensor], tuple[Tensor, Tensor]]
    """values [B, D] -> those of all candidates [C, D], with gradient, and the rows [C] of these in the global batch:
    all of it; where a worker's share is computed in parts, only those of the part"""
