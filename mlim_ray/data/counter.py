"""Randomness without state: a value is a function of the integers it is asked for.

Order, masks and probes are drawn here, so any worker, task or test finds the same value from (seed, epoch, record
key) alone (contract C2). SplitMix64 is the mixer (Steele, Lea and Flood 2014).
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInt64s = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def finalise(values: UInt64s) -> UInt64s:
    """SplitMix64's finaliser, element by element; a bijection of uint64."""
    with np.errstate(over="ignore"):
        x = (values ^ (values >> np.uint64(30))) * _MIX_1
        x = (x ^ (x >> np.uint64(27))) * _MIX_2
        return x ^ (x >> np.uint64(31))


def mix(values: ArrayLike) -> UInt64s:
    """One step of SplitMix64 from each value; a bijection of uint64."""
    with np.errstate(over="ignore"):
        return finalise(np.asarray(values, np.uint64) + _GOLDEN)


def draw(*counters: ArrayLike) -> UInt64s:
    """Fold integers, or broadcastable arrays of them, to uniform uint64 values."""
    state = np.zeros((), np.uint64)
    for counter in counters:
        state = mix(state ^ mix(counter))
    return state


def unit(*counters: ArrayLike) -> NDArray[np.float64]:
    """Uniform values in [0, 1) with 53 random bits, from the same counters as `draw`."""
    return (draw(*counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hash_key(key: str) -> int:
    """The 64-bit hash that stands for a record's key in the stream and in the masks."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
