"""How whole numbers are spread: a few order statistics and a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 24
# Beyond this many times the median a histogram of equal bins would show one bar.
_LONG_TAIL = 12


@dataclass(frozen=True)
class Distribution:
    """Whole numbers of a sample, at least one."""

    minimum: int
    median: int
    p95: int
    """the smallest value that at least 95 % of the values do not exceed"""
    maximum: int
    edges: tuple[int, ...]
    """of at most NUM_BINS bins, each from its edge up to the next one, exclusive; geometric for a long tail"""
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[int]) -> Distribution | None:
        """The distribution of whole numbers of 0 and more; None if there are none."""
        if not values:
            return None
        ordered = np.sort(np.asarray(values, np.int64))
        last = len(ordered) - 1
        low, high = int(ordered[0]), int(ordered[-1])
        median = int(ordered[last // 2])
        edges = _edges(low, high, median)
        counts, _ = np.histogram(ordered, edges)
        return cls(
            low,
            median,
            int(ordered[min(last, int(np.ceil(0.95 * len(ordered))) - 1)]),
            high,
            tuple(edges),
            tuple(int(count) for count in counts),
        )


def _edges(low: int, high: int, median: int) -> list[int]:
    if high > _LONG_TAIL * max(1, median):
        inner = np.geomspace(max(1, low), high + 1, NUM_BINS + 1).round().astype(np.int64)
        return sorted({low, *(int(edge) for edge in inner[1:-1] if low < edge <= high), high + 1})
    width = -(-(high - low + 1) // NUM_BINS)
    num_bins = -(-(high - low + 1) // width)
    return [low + width * i for i in range(num_bins + 1)]
