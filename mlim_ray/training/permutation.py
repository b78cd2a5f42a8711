"""A keyed permutation of range(n) in constant memory: Feistel network with cycle walking."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlim_ray.data.counter import UInt64s, draw, mix

# Four are enough for large n; eight are fair for a handful of row groups too.
_NUM_ROUNDS = 8


class Permutation:
    """`Permutation(n, key...)(i)` is the i-th element of a seeded shuffle of range(n).

    A table of 10^8 entries takes seconds and hundreds of megabytes in every process; this takes neither (Black and
    Rogaway 2002 for the cycle walking).
    """

    def __init__(self, num_items: int, *key: int) -> None:
        self.num_items = num_items
        half_bits = max(1, ((num_items - 1).bit_length() + 1) // 2)
        self._half_bits = np.uint64(half_bits)
        self._half_mask = np.uint64((1 << half_bits) - 1)
        self._round_keys = [draw(*key, number) for number in range(_NUM_ROUNDS)]

    def __call__(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The elements at `indices`, each in [0, num_items)."""
        out = self._encrypt(np.asarray(indices, np.uint64))
        while (outside := out >= self.num_items).any():
            out[outside] = self._encrypt(out[outside])
        return out.astype(np.int64)

    def _encrypt(self, values: UInt64s) -> UInt64s:
        left, right = values >> self._half_bits, values & self._half_mask
        for round_key in self._round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & self._half_mask)
        return np.asarray((left << self._half_bits) | right, np.uint64)
