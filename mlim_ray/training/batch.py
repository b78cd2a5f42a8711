"""A masked batch: what the model learns from in one step.

Legend: B records, N image cells, T token positions, H and W pixels.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.records import Records
from mlim_ray.masking.masks import Masks, PolicyConfig, draw_masks
from mlim_ray.training.resolution import Stage


class Batch(NamedTuple):
    """B records with their masks, as numpy arrays; B may be 0 for a worker whose lanes have no row in a step."""

    key_hash_B: NDArray[np.uint64]
    epoch_B: NDArray[np.int64]
    pixels_BHW3: NDArray[np.uint8]
    token_ids_BT: NDArray[np.int32]
    num_tokens_B: NDArray[np.int16]
    mode_B: NDArray[np.int8]
    cell_hidden_BN: NDArray[np.bool_]
    token_hidden_BT: NDArray[np.bool_]

    def take(self, index: NDArray[np.int64] | slice) -> "Batch":
        """A selection of the records."""
        return Batch._make(array[index] for array in self)


class Masking(NamedTuple):
    """All that batches depend on besides the records."""

    policy: PolicyConfig
    seed: int
    num_cells: int
    image_size: int | None = None
    """side in pixels that pictures are shrunk to; None: they are as they are"""
    stages: tuple[Stage, ...] = ()
    """of a run, its first steps with smaller pictures"""

    def at(self, step: int) -> "Masking":
        """Of one step of a run."""
        for stage in self.stages:
            if step < stage.stop_step:
                return self._replace(num_cells=stage.num_cells, image_size=stage.image_size, stages=())
        return self

    def runs(self, start_step: int, stop_step: int) -> list[range]:
        """The steps [start_step, stop_step), cut where pictures change their size."""
        changes = (stage.stop_step for stage in self.stages if start_step < stage.stop_step < stop_step)
        return [range(start, stop) for start, stop in pairwise(sorted({start_step, *changes, stop_step}))]


def make_batch(records: Records, epoch: int | NDArray[np.int64], masking: Masking) -> Batch:
    """Mask records as the policy says for this epoch, or for the epoch of each, their pictures as large as it says."""
    epoch_B = np.full(len(records.key_hash_R), epoch, np.int64)
    masks = draw_masks(
        masking.policy,
        seed=masking.seed,
        epoch_B=epoch_B,
        key_hash_B=records.key_hash_R,
        num_cells=masking.num_cells,
        word_of_token_BT=records.word_of_token_RT,
    )
    return masked(records.shrunk(masking.image_size), masks, epoch_B)


def masked(records: Records, masks: Masks, epoch: int | NDArray[np.int64] = 0) -> Batch:
    """Records with given masks; probes and pictures bring their own, outside any epoch."""
    return Batch(
        records.key_hash_R,
        np.full(len(records.key_hash_R), epoch, np.int64),
        records.pixels_RHW3,
        records.token_ids_RT,
        records.num_tokens_R,
        masks.mode_B,
        masks.cell_hidden_BN,
        masks.token_hidden_BT,
    )
