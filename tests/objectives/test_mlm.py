"""MLM against a computation of its own in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.objectives import mlm_terms


def test_the_loss_of_a_record_is_the_sum_over_its_hidden_pieces() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 7, (4, 5))
    hidden = rng.random((4, 5)) < 0.5
    hidden[2] = False
    logits = rng.normal(0, 3, (hidden.sum(), 7))
    terms = mlm_terms(torch.tensor(logits), torch.tensor(ids), torch.tensor(hidden))

    expected = np.zeros(4)
    for row, (record, position) in enumerate(zip(*np.nonzero(hidden), strict=True)):
        probabilities = np.exp(logits[row]) / np.exp(logits[row]).sum()
        expected[record] -= np.log(probabilities[ids[record, position]])
    np.testing.assert_allclose(terms.sum_B, expected, rtol=1e-5)
    assert terms.count_B.tolist() == hidden.sum(1).tolist()
    assert terms.sum_B[2] == 0.0


@pytest.mark.parametrize("num_records", [0, 3])
def test_without_hidden_pieces_it_is_a_zero_with_a_gradient(num_records: int) -> None:
    logits = torch.zeros(0, 7, requires_grad=True)
    weight = torch.ones(2, requires_grad=True)
    terms = mlm_terms(
        logits * weight.sum(),
        torch.zeros(num_records, 5, dtype=torch.long),
        torch.zeros(num_records, 5, dtype=torch.bool),
    )
    assert terms.sum_B.tolist() == terms.count_B.tolist() == [0.0] * num_records
    terms.sum_B.sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [0.0, 0.0]


def test_half_precision_logits_are_summed_in_full() -> None:
    logits = torch.randn(64, 1000, dtype=torch.bfloat16)
    ids = torch.randint(1000, (1, 64))
    terms = mlm_terms(logits, ids, torch.ones(1, 64, dtype=torch.bool))
    assert terms.sum_B.dtype == torch.float32
    expected = -logits.double().log_softmax(1)[torch.arange(64), ids[0]].sum()
    assert terms.sum_B[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_places_that_are_known_change_nothing() -> None:
    hidden = torch.tensor([[False, True, True], [False, False, False], [True, False, True]])
    ids, logits = torch.randint(9, (3, 3)), torch.randn(4, 9)
    found = mlm_terms(logits, ids, hidden, hidden.flatten().nonzero()[:, 0])
    for ours, expected in zip(found, mlm_terms(logits, ids, hidden), strict=True):
        assert torch.equal(ours, expected)
    nll = -logits.log_softmax(1)[torch.arange(4), ids[hidden]]
    torch.testing.assert_close(found.sum_B, torch.stack([nll[:2].sum(), nll[:0].sum(), nll[2:].sum()]))
