"""Blocks are blocks, of the sizes asked for, and no cell is hidden more often than another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from mlim_ray.config import BlockwiseConfig, IndependentConfig
from mlim_ray.masking import draw_masks
from mlim_ray.masking.masks import PolicyConfig
from tests.builders import word_rows


def hidden(policy: PolicyConfig, num_records: int, side: int, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    masks = draw_masks(
        policy,
        seed=seed,
        epoch_B=np.full(num_records, epoch),
        key_hash_B=np.arange(num_records, dtype=np.uint64) * np.uint64(2**40 + 1),
        num_cells=side**2,
        word_of_token_BT=word_rows([[]] * num_records, 4),
    )
    return masks.cell_hidden_BN.reshape(num_records, side, side)


def num_borders(cells: np.ndarray) -> float:
    """Pairs of neighbours of which one is hidden, around the edges too."""
    return sum(float((cells ^ np.roll(cells, 1, axis)).mean()) for axis in (1, 2))


@given(st.integers(2, 9), st.floats(0.0, 1.0), st.integers(0, 2**62), st.integers(0, 99))
def test_as_many_cells_as_the_ratio_says(side: int, ratio: float, seed: int, epoch: int) -> None:
    cells = hidden(BlockwiseConfig(image_ratio=ratio), 8, side, seed=seed, epoch=epoch)
    assert (np.abs(cells.sum((1, 2)) - ratio * side**2) < 1).all()
    np.testing.assert_array_equal(cells, hidden(BlockwiseConfig(image_ratio=ratio), 8, side, seed=seed, epoch=epoch))


@pytest.mark.parametrize(("side", "ratio"), [(4, 0.4), (7, 0.6), (5, 0.15)])
def test_every_cell_is_hidden_equally_often_and_the_share_is_the_ratio(side: int, ratio: float) -> None:
    num_records = 8_000
    share = hidden(BlockwiseConfig(image_ratio=ratio), num_records, side).mean(0)
    np.testing.assert_allclose(share, ratio, atol=4.5 * math.sqrt(ratio * (1 - ratio) / num_records))
    assert share.mean() == pytest.approx(ratio, abs=4 / (side * math.sqrt(num_records)))


@pytest.mark.parametrize(("height", "aspect"), [(2, 1.0), (3, 1.0), (1, 1.0)])
def test_one_block_of_a_given_size_is_a_square(height: int, aspect: float) -> None:
    share = height**2 / 64
    policy = BlockwiseConfig(
        image_ratio=share, smallest_block_ratio=share, largest_block_ratio=share, smallest_aspect=aspect
    )
    for cells in hidden(policy, 200, 8):
        rows, columns = cells.any(1), cells.any(0)
        assert rows.sum() == columns.sum() == height
        assert np.array_equal(cells, rows[:, None] & columns[None])
        # In one piece, also where it goes over an edge.
        assert (rows ^ np.roll(rows, 1)).sum() == 2


def test_blocks_are_as_long_as_the_aspect_lets_them_and_lie_as_often_as_they_stand() -> None:
    # All that is hidden lies in the first block: each has more cells than are wanted.
    share = 16 / 144
    policy = BlockwiseConfig(
        image_ratio=10 / 144, smallest_block_ratio=share, largest_block_ratio=share, smallest_aspect=0.25
    )
    cells = hidden(policy, 4_000, 12)
    num_rows, num_columns = cells.any(2).sum(1), cells.any(1).sum(1)
    assert num_rows.max() == num_columns.max() == 8
    assert num_rows.min() == num_columns.min() == 2
    lying, standing = np.mean(num_columns > num_rows), np.mean(num_columns < num_rows)
    assert lying > 0.3 and abs(lying - standing) < 0.04


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_what_is_hidden_hangs_together(ratio: float) -> None:
    blocks = hidden(BlockwiseConfig(image_ratio=ratio), 1_000, 8)
    scattered = hidden(IndependentConfig(image_ratio=ratio), 1_000, 8)
    assert num_borders(blocks) < 0.65 * num_borders(scattered)
    pieces = [np.mean([ndimage.label(each)[1] for each in cells]) for cells in (blocks, scattered)]
    assert pieces[0] < 0.75 * pieces[1]


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_draws_independently(other: dict[str, int]) -> None:
    policy = BlockwiseConfig(image_ratio=0.5)
    one, two = hidden(policy, 4_000, 4), hidden(policy, 4_000, 4, **other)
    assert (one & two).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smallest_block_ratio": 0.5, "largest_block_ratio": 0.2}, "smallest to be at most the largest"),
        ({"image_only_probability": 0.7, "text_only_probability": 0.6}, "is 1.3, expected at most 1"),
        ({"smallest_aspect": 0.0}, "smallest_aspect"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BlockwiseConfig(**values)
