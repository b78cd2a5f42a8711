"""The keyed permutation: a bijection for any size and key, and a fair shuffle."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.training.permutation import Permutation


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_every_item_comes_once(num_items: int, seed: int, epoch: int) -> None:
    order = Permutation(num_items, seed, epoch)(np.arange(num_items))
    np.testing.assert_array_equal(np.sort(order), np.arange(num_items))


@given(st.integers(1, 2**40), st.integers(0, 2**63 - 1), st.data())
def test_items_asked_for_alone_are_those_asked_for_together(num_items: int, seed: int, data: st.DataObject) -> None:
    indices = np.array(data.draw(st.lists(st.integers(0, num_items - 1), min_size=1, max_size=8)))
    together = Permutation(num_items, seed)(indices)
    assert ((together >= 0) & (together < num_items)).all()
    assert [int(Permutation(num_items, seed)(index)) for index in indices] == together.tolist()


def test_every_item_is_as_likely_at_every_place() -> None:
    num_items, num_keys = 6, 3000
    tables = np.array([Permutation(num_items, 0, key)(np.arange(num_items)) for key in range(num_keys)])
    expected = num_keys / num_items
    for place in range(num_items):
        counts = np.bincount(tables[:, place], minlength=num_items)
        # Chi-square with 5 degrees of freedom: above 26 once in 10,000 fair shuffles.
        assert ((counts - expected) ** 2 / expected).sum() < 26


def test_neighbours_part() -> None:
    num_items = 4096
    order = Permutation(num_items, 1)(np.arange(num_items))
    # Random places lie a third of the range apart on average, and keep no order.
    assert np.abs(np.diff(order)).mean() > num_items / 4
    assert abs(np.corrcoef(order, np.arange(num_items))[0, 1]) < 0.06
