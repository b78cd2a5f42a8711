"""Ranks of right answers against brute force: ties put in order in every possible way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.evaluation.ranking import best_candidates, rank, rerank


def by_every_order(scores: list[int], right: list[bool], num_first: int) -> tuple[float, float]:
    """Mean rank of the first right answer and share of hits over all orders that the scores allow."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        ordered = sorted(order, key=lambda i: -scores[i])
        ranks.append(next(place for place, i in enumerate(ordered, 1) if right[i]))
    return float(np.mean(ranks)), float(np.mean([place <= num_first for place in ranks]))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6).filter(
        lambda pairs: any(right for _, right in pairs)
    ),
    st.integers(1, 7),
)
def test_ties_count_as_the_mean_over_every_order(pairs: list[tuple[int, bool]], num_first: int) -> None:
    scores, right = [score for score, _ in pairs], [right for _, right in pairs]
    ranks = rank(np.array([scores], float), np.array([right]))
    mean_rank, hits = by_every_order(scores, right, num_first)
    assert ranks.expected()[0] == pytest.approx(mean_rank)
    assert ranks.hits_at(num_first)[0] == pytest.approx(hits)


def test_each_query_is_ranked_by_itself() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.1]])
    ranks = rank(scores, np.array([[False, False, True], [False, True, False]]))
    assert ranks.expected().tolist() == [2.0, 1.0]
    assert ranks.hits_at(1).tolist() == [0.0, 1.0] and ranks.hits_at(2).tolist() == [1.0, 1.0]


def test_scores_that_differ_in_their_last_bits_are_ties() -> None:
    ranks = rank(np.array([[0.5, 0.5 + 1e-9]]), np.array([[True, False]]))
    assert ranks.expected()[0] == 1.5


def test_a_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="1 queries have no right answer"):
        rank(np.zeros((2, 2)), np.array([[True, False], [False, False]]))


def test_reranking_moves_only_the_candidates_that_have_a_finer_score() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
    finer = np.array([[np.nan, np.nan, np.nan, np.nan], [np.nan, np.nan, 5.0, -3.0]])
    order = best_candidates(rerank(scores, finer), 4)
    assert order.tolist() == [[0, 1, 2, 3], [2, 3, 1, 0]]
    assert best_candidates(scores, 2).tolist() == [[0, 1], [3, 2]]
