"""Histograms of oriented gradients against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.config import HogReconConfig
from mlim_ray.objectives.hog import Hog, histograms
from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_model, make_records


@pytest.mark.parametrize(("num_bins", "pixels", "size"), [(9, 8, 32), (9, 8, 64), (6, 4, 16), (12, 8, 24)])
def test_histograms_are_those_of_scikit_image(num_bins: int, pixels: int, size: int) -> None:
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is not installed: make setup-dev")
    images = np.random.default_rng(size).random((3, 3, size, size))
    found = histograms(torch.from_numpy(images), num_bins, pixels).numpy()
    for image, of_image in zip(images, found, strict=True):
        for colour in range(3):
            expected = feature.hog(
                image[colour],
                orientations=num_bins,
                pixels_per_cell=(pixels, pixels),
                cells_per_block=(1, 1),
                block_norm="L2",
                feature_vector=False,
            )[:, :, 0, 0]
            np.testing.assert_allclose(of_image[:, colour].transpose(1, 2, 0), expected, atol=1e-4)


def test_a_slope_has_one_direction() -> None:
    across = torch.arange(16.0).expand(1, 3, 16, 16) / 16
    found = histograms(across, 9, 8)
    torch.testing.assert_close(found[:, 0], torch.ones(1, 3, 2, 2), rtol=1e-3, atol=1e-3)
    assert found[:, 1:].abs().max() == 0.0
    up = across.transpose(2, 3)
    torch.testing.assert_close(histograms(up, 9, 8)[:, 4], torch.ones(1, 3, 2, 2), rtol=1e-3, atol=1e-3)
    assert histograms(torch.full((1, 3, 16, 16), 0.4), 9, 8).abs().max() == 0.0


def test_the_histograms_of_a_cell_are_of_its_own_place() -> None:
    model = make_model()
    inputs = to_tensors(make_batch(make_records(3), 0, make_masking(make_config())), torch.device("cpu"))
    pixels = torch.rand(3, 3, 16, 16)
    objective = Hog(HogReconConfig(pixels=2), model.config)
    targets = objective.targets(model, inputs._replace(pixels_B3HW=pixels))
    # Four cells of 4 pixels in a row, each of four squares in three colours.
    assert targets.shape == (3, 16, 3 * 4 * 9)
    whole = histograms(pixels, 9, 2)
    row, column, colour, square = 2, 1, 1, (1, 0)
    index = (colour * 4 + square[0] * 2 + square[1]) * 9
    expected = whole[:, :, colour, 2 * row + square[0], 2 * column + square[1]]
    torch.testing.assert_close(targets[:, 4 * row + column, index : index + 9], expected)


def test_squares_that_do_not_fit_the_cells_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--recon.pixels 8 does not divide .* 4 pixels; use --recon.pixels 4"):
        Hog(HogReconConfig(), make_model().config)
