"""What the global batches of a run are made of, as two numbers that tell at once where two runs part.

`data/keys` stands for the record keys of each step, with multiplicity, and `data/masks` for the keys with the cells and
tokens hidden in each. Both are sums modulo 2^64 over records of a hash of (step, key, hidden units): neither the order
within a batch nor the cut into workers changes them, the sums of several lines add up to that of one longer line, and
what is padding adds nothing (our choice).

Legend: B records, N image cells, T token positions, W words of 64 bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlim_ray.data.counter import UInt64s, mix
from mlim_ray.training.batch import Batch
from mlim_ray.training.distributed import rank, sum_over_workers
from mlim_ray.training.metrics import KEYS, MASKS

_WORD_BYTES = 8


class Fingerprint:
    """Digests of all batches since the last logged line, of all workers."""

    def __init__(self, device: torch.device) -> None:
        """`device` is where the workers' parts are added up."""
        self._device = device
        self._sums = np.zeros(2, np.uint64)

    def add(self, step: int, batch: Batch) -> None:
        """Count in this worker's part of the batch of a step."""
        self._sums += batch_digests(step, batch)

    def state(self) -> Tensor:
        """The sums of all workers as int64 [2]; every worker calls it, and the first one then holds them all."""
        total = self._total()
        self.load_state(total)
        return total

    def load_state(self, sums: Tensor) -> None:
        """Go on from what `state` gave."""
        self._sums = sums.cpu().numpy().view(np.uint64).copy() if rank() == 0 else np.zeros(2, np.uint64)

    def read_and_reset(self) -> dict[str, str]:
        """Both digests since the last call, as 16 hexadecimal digits each; every worker calls it."""
        keys, masks = self._total().numpy().view(np.uint64)
        self._sums = np.zeros(2, np.uint64)
        return {KEYS: f"{keys:016x}", MASKS: f"{masks:016x}"}

    def _total(self) -> Tensor:
        # int64 wraps around as uint64 does, and every backend can add it.
        return sum_over_workers(torch.from_numpy(self._sums.view(np.int64).copy()).to(self._device)).cpu()


def batch_digests(step: int, batch: Batch) -> UInt64s:
    """The digests of keys and of masks of the records of a step, uint64 [2]."""
    key_B = mix(batch.key_hash_B ^ mix(step))
    cells_BW, tokens_BW = _words(batch.cell_hidden_BN), _words(batch.token_hidden_BT)
    words_BW = np.concatenate([cells_BW, tokens_BW], axis=1)
    place_W = np.concatenate([2 * np.arange(cells_BW.shape[1]), 2 * np.arange(tokens_BW.shape[1]) + 1])
    hidden_BW = mix(mix(key_B[:, None] ^ mix(place_W)) ^ words_BW)
    keys = key_B.sum(dtype=np.uint64)
    # Words without a hidden unit add nothing, so that wider padding changes nothing.
    return np.array([keys, hidden_BW.sum(where=words_BW != 0, initial=keys, dtype=np.uint64)], np.uint64)


def _words(hidden_BU: NDArray[np.bool_]) -> UInt64s:
    """Bits packed into uint64 [B, W], the same on any machine."""
    packed = np.packbits(hidden_BU, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // _WORD_BYTES) * _WORD_BYTES), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)
