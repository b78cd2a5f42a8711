"""Block-wise masking: rectangles of neighbouring cells (BEiT, BEiT-3 and VL-BEiT; MaskVLM with one side at a time).

Legend: B records, N cells.

A hidden cell among visible ones can be guessed from its neighbours; the middle of a hidden block cannot. BEiT draws
rectangles inside the grid until enough is hidden, and hides its middle more often than its edges. Here blocks go over
an edge and on at the opposite one, and the last block gives only as many cells as are still wanted, chosen by chance
(our choice): so every cell is hidden equally often, and how many are is as exact as with every other policy.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlim_ray.config import BlockwiseConfig
from mlim_ray.data.counter import UInt64s, draw, unit

# What a block's counter is drawn for.
_AREA, _ASPECT, _TOP, _LEFT = range(4)
# Above the lowest 48 bits of a cell's lot stands the block that hides it.
_BLOCK_SHIFT = np.uint64(48)
_MOST_BLOCKS = 4_096


def block_lots(config: BlockwiseConfig, lot_BN: UInt64s, counters_B: tuple[ArrayLike, ...]) -> UInt64s:
    """Lots of the cells, of which the lowest are hidden: those of the first block first, then the second's.

    Args:
        config: what blocks are like.
        lot_BN: uniform, deciding within a block; a cell in no block comes last.
        counters_B: what the blocks of each record are drawn from.
    """
    num_records, num_cells = lot_BN.shape
    side = math.isqrt(num_cells)
    num_blocks = _num_blocks(config, num_cells)
    position = np.arange(side)
    block_BN = np.full((num_records, side, side), num_blocks, np.uint64)
    for block in reversed(range(num_blocks)):
        span = config.largest_block_ratio - config.smallest_block_ratio
        area_B = num_cells * (config.smallest_block_ratio + span * unit(*counters_B, block, _AREA))
        # Uniform on a log scale, so that lying and standing blocks are equally frequent.
        aspect_B = config.smallest_aspect ** (2.0 * unit(*counters_B, block, _ASPECT) - 1.0)
        in_rows_BS = _within(draw(*counters_B, block, _TOP), np.sqrt(area_B * aspect_B), position)
        in_columns_BS = _within(draw(*counters_B, block, _LEFT), np.sqrt(area_B / aspect_B), position)
        block_BN[in_rows_BS[:, :, None] & in_columns_BS[:, None, :]] = block
    lots: UInt64s = (block_BN.reshape(lot_BN.shape) << _BLOCK_SHIFT) | (lot_BN >> np.uint64(64) - _BLOCK_SHIFT)
    return lots


def _within(start_B: UInt64s, length_B: NDArray[np.float64], position: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of a row's positions [B, S] lie in a block that begins at a drawn one, and goes on at the other end."""
    side = len(position)
    first_B1 = (start_B % np.uint64(side)).astype(np.int64)[:, None]
    length_B1 = np.clip(np.rint(length_B).astype(np.int64), 1, side)[:, None]
    within: NDArray[np.bool_] = (position - first_B1) % side < length_B1
    return within


def _num_blocks(config: BlockwiseConfig, num_cells: int) -> int:
    """As many as hide the ratio even if all are of the smallest size, with half as many to spare."""
    smallest = max(config.smallest_block_ratio, 1.0 / num_cells)
    wanted = math.ceil(-1.5 * math.log(1.0 - min(config.image_ratio, 0.95)) / smallest) + 4
    return min(wanted, _MOST_BLOCKS)
