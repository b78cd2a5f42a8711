"""Ranks of right answers among scored candidates, ties counted by what is expected of them.

Legend: Q queries, C candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 6
"""scores that agree so far are ties: the last bits depend on what a record was batched with"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """Where the first right answer of each query stands."""

    ahead_Q: NDArray[np.int64]
    """wrong candidates with a better score than the best right one"""
    wrong_tied_Q: NDArray[np.int64]
    right_tied_Q: NDArray[np.int64]
    """candidates with the very score of the best right one, itself among the right ones"""

    def hits_at(self, num_first: int) -> Floats:
        """Probability [Q] that a right answer is among the first so many, if ties are put in order by chance."""
        missed_Q = np.ones(len(self.ahead_Q))
        tied_Q = self.wrong_tied_Q + self.right_tied_Q
        places_Q = np.clip(num_first - self.ahead_Q, 0, tied_Q)
        for place in range(int(places_Q.max(initial=0))):
            left_Q = np.maximum(tied_Q - place, 1)
            share_Q = np.maximum(self.wrong_tied_Q - place, 0) / left_Q
            missed_Q *= np.where(place < places_Q, share_Q, 1.0)
        return 1.0 - missed_Q

    def expected(self) -> Floats:
        """Expected rank [Q] of the first right answer, from 1."""
        return (1.0 + self.ahead_Q + self.wrong_tied_Q / (self.right_tied_Q + 1.0)).astype(np.float64)


def rank(scores_QC: Floats, right_QC: NDArray[np.bool_]) -> Ranks:
    """Ranks by descending score; each query has a right answer or several, and the first of them counts.

    Raises:
        ValueError: a query has no right answer.
    """
    if not right_QC.any(1).all():
        raise ValueError(f"{int((~right_QC.any(1)).sum())} queries have no right answer among the candidates")
    scores_QC = np.round(scores_QC, _DECIMALS)
    best_Q1 = np.where(right_QC, scores_QC, -np.inf).max(1, keepdims=True)
    tied_QC = scores_QC == best_Q1
    return Ranks((~right_QC & (scores_QC > best_Q1)).sum(1), (tied_QC & ~right_QC).sum(1), (tied_QC & right_QC).sum(1))


def rerank(scores_QC: Floats, finer_QC: Floats) -> Floats:
    """Scores with which the candidates that have a finer score come first, ordered by it, and the others follow as
    they were; NaN where a candidate has none."""
    has_QC = ~np.isnan(finer_QC)
    lowest_Q1 = np.where(has_QC, finer_QC, np.inf).min(1, keepdims=True)
    above = 1.0 + scores_QC.max(1, keepdims=True)
    return np.where(has_QC, above + finer_QC - np.where(np.isfinite(lowest_Q1), lowest_Q1, 0.0), scores_QC)


def best_candidates(scores_QC: Floats, num_best: int) -> NDArray[np.int64]:
    """Indices [Q, num_best] of the best candidates, the first of equals first."""
    return np.argsort(-np.round(scores_QC, _DECIMALS), axis=1, kind="stable")[:, :num_best]
