"""Order statistics and histograms against numpy and plain counting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.inspection import Distribution, share
from mlim_ray.data.inspection.distribution import NUM_BINS

VALUES = st.lists(st.one_of(st.integers(0, 30), st.integers(0, 10**9)), min_size=1, max_size=60)


@given(values=VALUES)
def test_every_value_is_in_the_bin_that_its_edges_name(values: list[int]) -> None:
    found = Distribution.of(values)
    assert found is not None
    assert (found.minimum, found.maximum) == (min(values), max(values))
    assert found.median == np.quantile(values, 0.5, method="lower")
    assert sum(value <= found.p95 for value in values) >= 0.95 * len(values)
    assert sum(value < found.p95 for value in values) < 0.95 * len(values)
    assert len(found.counts) == len(found.edges) - 1 <= NUM_BINS
    assert found.edges[0] == min(values) and found.edges[-1] > max(values)
    for (low, high), count in zip(pairwise(found.edges), found.counts, strict=True):
        assert low < high and count == sum(low <= value < high for value in values)
    assert sum(found.counts) == len(values)


def test_a_long_tail_does_not_squeeze_the_rest_into_one_bar() -> None:
    found = Distribution.of([*range(50, 100), 60_000])
    assert found is not None and sum(count > 0 for count in found.counts) > 3


def test_nothing_has_no_distribution() -> None:
    assert Distribution.of([]) is None


@pytest.mark.parametrize(
    ("count", "total", "said"),
    [
        (0, 10, "0 %"),
        (0, 0, "0 %"),
        (10, 10, "100 %"),
        (1, 100_000, "under 0.1 %"),
        (99_999, 100_000, "over 99.9 %"),
        (995, 1_000, "99.5 %"),
        (25, 1_000, "2.5 %"),
        (1, 3, "33 %"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(count: int, total: int, said: str) -> None:
    assert share(count, total) == said
