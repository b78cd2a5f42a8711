"""Random numbers by address: a draw is a function of (seed, stream, index), so slices need no order."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.counter import finalise

MASK = 2**64 - 1
STEP = 0x9E3779B97F4A7C15


class Stream(IntEnum):
    """What a draw is for; two streams of one seed are independent."""

    GROUPS = 1
    SPLIT = 2
    PRODUCT = 3
    TEMPLATE = 4
    WORDING = 5
    POSE = 6
    NOISE = 7
    LIMIT_PRODUCT = 8
    LIMIT_POSE = 9


def random_bits(seed: int, stream: Stream, index: NDArray[np.integer], width: int) -> NDArray[np.uint64]:
    """Independent 64-bit words, shape [len(index), width]; row k depends on (seed, stream, index[k]) alone.

    SplitMix64 (Steele, Lea and Flood 2014) started anew for each index. Raises ValueError for a seed
    outside 0..2**64-1.
    """
    if not 0 <= seed <= MASK:
        raise ValueError(f"seed {seed} given, a whole number from 0 to 2**64 - 1 expected: choose one of these")
    key = np.uint64((seed * STEP + int(stream) * 0xD1B54A32D192ED03) & MASK)
    keys = finalise(np.full(1, key, dtype=np.uint64))
    rows = finalise(keys + index.astype(np.uint64) * np.uint64(STEP))
    steps = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(STEP)
    return finalise(rows[:, None] + steps[None, :])


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 random bits each, of the shape given."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
