"""A smaller picture is the mean over areas, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.shrinking import overlaps, shrink
from tests.builders import make_records


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32))
def test_whole_factors_are_numpys_mean(num_pictures: int, side: int, factor: int, seed: int) -> None:
    size = side * factor
    pixels = np.random.default_rng(seed).integers(0, 256, (num_pictures, size, size, 3), np.uint8)
    mean = pixels.reshape(num_pictures, side, factor, side, factor, 3).mean((2, 4))
    found = shrink(pixels, side)
    assert found.dtype == np.uint8
    # Halves are rounded up; a mean of up to 25 whole numbers is further from any other half than its rounding error.
    np.testing.assert_array_equal(found, np.floor(mean + 0.5 + 1e-9))


@given(st.integers(1, 12), st.data(), st.integers(0, 2**32))
def test_other_factors_are_the_mean_over_parts_of_pixels(size: int, data: st.DataObject, seed: int) -> None:
    side = data.draw(st.integers(1, size))
    pixels = np.random.default_rng(seed).integers(0, 256, (2, size, size, 3), np.uint8)
    parts = pixels.astype(np.int64).repeat(side, 1).repeat(side, 2).reshape(2, side, size, side, size, 3)
    np.testing.assert_array_equal(shrink(pixels, side), (2 * parts.sum((2, 4)) + size**2) // (2 * size**2))


@pytest.mark.parametrize(("size", "side"), [(224, 128), (384, 224)])
def test_pictures_of_the_large_sizes_are_exact_too(size: int, side: int) -> None:
    # The brightest sums are the largest: single precision could not hold the second one's.
    rng = np.random.default_rng(0)
    pixels = rng.integers(200, 256, (1, size, size, 3), np.uint8)
    share = overlaps(size, side)
    sums = np.einsum("ai,bj,rijc->rabc", share, share, pixels.astype(np.int64), optimize=True)
    np.testing.assert_array_equal(shrink(pixels, side), (2 * sums + size**2) // (2 * size**2))
    assert (shrink(np.full((1, size, size, 3), 255, np.uint8), side) == 255).all()


def test_many_pictures_are_shrunk_one_by_one() -> None:
    records = make_records(150)
    small = records.shrunk(12)
    np.testing.assert_array_equal(small.pixels_RHW3[149], shrink(records.pixels_RHW3[149:], 12)[0])
    for name, value in small._asdict().items():
        assert name == "pixels_RHW3" or value is getattr(records, name)
    assert records.shrunk(None) is records and records.shrunk(16) is records
    assert make_records(3).take(slice(0, 0)).shrunk(8).pixels_RHW3.shape == (0, 8, 8, 3)
