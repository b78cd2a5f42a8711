"""PR AUC under many resamplings at once: scikit-learn's average precision, vectorised over weights.

Legend: P pairs, K resamplings, E distinct scores.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlim_ray.evaluation.bootstrap import NUM_DRAWS
from mlim_ray.evaluation.intervals import CONFIDENCE, Estimate

Floats = NDArray[np.float64]


def average_precision(is_same_P: NDArray[np.bool_], score_P: Floats, weight_KP: Floats) -> Floats:
    """Average precision [K] of one ranking of pairs under several weightings, tied scores taken together.

    Each weighting has a positive pair of weight above 0.
    """
    order_P = np.argsort(-score_P, kind="stable")
    ends_E = np.append(np.flatnonzero(np.diff(score_P[order_P])), len(order_P) - 1)
    found_KE = np.cumsum(weight_KP[:, order_P], 1)[:, ends_E]
    right_KE = np.cumsum((weight_KP * is_same_P)[:, order_P], 1)[:, ends_E]
    precision_KE = right_KE / np.maximum(found_KE, 1e-12)
    gained_KE = np.diff(right_KE, axis=1, prepend=0.0)
    average: Floats = (gained_KE * precision_KE).sum(1) / right_KE[:, -1]
    return average


def over_products(
    is_same_P: NDArray[np.bool_], product_P: NDArray[np.int64], scores: Sequence[Floats], seed: int = 0
) -> Estimate:
    """Mean average precision of several rankings, with its 95 % percentile interval over resampled products.

    A pair counts as often as the product that it was made for is drawn. Each product has a positive pair.
    """
    _, place_P = np.unique(product_P, return_inverse=True)
    num_products = int(place_P.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(num_products, np.full(num_products, 1 / num_products), NUM_DRAWS)
    weight_KP = np.vstack([np.ones(num_products, np.int64), drawn]).astype(np.float64)[:, place_P]
    value_K = np.mean([average_precision(is_same_P, score_P, weight_KP) for score_P in scores], axis=0)
    tails = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(value_K[1:], [tails, 100 - tails])
    return Estimate(float(value_K[0]), float(low), float(high))
