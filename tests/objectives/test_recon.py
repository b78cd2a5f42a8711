"""RECON against a computation of its own in numpy: summed over channels, averaged over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.objectives import pixels_of_cells, recon_terms

SIDE, GRID = 12, 3


def make_case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    hidden = rng.random((5, GRID * GRID)) < 0.4
    hidden[0], hidden[1] = False, True
    return rng.random((5, 3, SIDE, SIDE)), rng.random((5, 3, SIDE, SIDE)), hidden


def test_the_whole_picture_counts() -> None:
    painted, pixels, hidden = make_case()
    terms = recon_terms(*map(torch.tensor, (painted, pixels, hidden)), "whole")
    np.testing.assert_allclose(terms.sum_B, ((painted - pixels) ** 2).sum((1, 2, 3)), rtol=1e-5)
    assert terms.count_B.tolist() == [SIDE * SIDE] * 5
    # The mean is three times the usual mean squared error, which also averages over channels.
    mean = terms.sum_B.sum() / terms.count_B.sum()
    assert mean.item() == pytest.approx(3 * ((painted - pixels) ** 2).mean(), rel=1e-5)


def test_only_hidden_cells_count_when_asked_for() -> None:
    painted, pixels, hidden = make_case()
    terms = recon_terms(*map(torch.tensor, (painted, pixels, hidden)), "masked")
    size = SIDE // GRID
    expected = np.zeros(5)
    for record, cell in zip(*np.nonzero(hidden), strict=True):
        rows, columns = (slice(place * size, (place + 1) * size) for place in divmod(cell, GRID))
        expected[record] += ((painted - pixels)[record, :, rows, columns] ** 2).sum()
    np.testing.assert_allclose(terms.sum_B, expected, rtol=1e-5)
    assert terms.count_B.tolist() == (hidden.sum(1) * size * size).tolist()


@pytest.mark.parametrize("target", ["whole", "masked"])
@pytest.mark.parametrize("num_records", [0, 2])
def test_without_targets_it_is_a_zero_with_a_gradient(target: str, num_records: int) -> None:
    painted = torch.rand(num_records, 3, SIDE, SIDE, requires_grad=True)
    terms = recon_terms(
        painted, torch.rand(num_records, 3, SIDE, SIDE), torch.zeros(num_records, 9, dtype=torch.bool), target
    )
    assert terms.sum_B.shape == terms.count_B.shape == (num_records,)
    terms.sum_B.sum().backward()
    assert painted.grad is not None and painted.grad.isfinite().all()
    if target == "masked":
        assert not terms.sum_B.any() and not terms.count_B.any() and not painted.grad.any()


def test_cells_lie_in_rows() -> None:
    spread = pixels_of_cells(torch.arange(4)[None], 4)
    assert spread[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
