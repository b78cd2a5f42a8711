"""A linear classifier of an attribute's values on features of records, and its calibrated confidence.

Legend: R records, D feature width, K values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from mlim_ray.evaluation.calibration import Floats, fit_temperature, probabilities
from mlim_ray.evaluation.linear_classifier import iterations_bounded, linear_classifier

INVERSE_STRENGTHS = (0.003, 0.01, 0.03, 0.1)
"""of the L2 penalty, the strongest first; the one with the best likelihood on held-out records is taken"""

Features = NDArray[np.float32]


@dataclass(frozen=True)
class AttributeHead:
    """Logits of the values, from features."""

    values: tuple[str, ...]
    """the candidates: those of the training records"""
    weight_DK: Floats
    bias_K: Floats
    temperature: float = 1.0
    """that logits are divided by"""
    inverse_strength: float | None = None
    """of the penalty that was chosen; None where a single value left nothing to learn"""

    def logits(self, features_RD: Features) -> Floats:
        """Before the temperature [R, K]."""
        out: Floats = features_RD.astype(np.float64) @ self.weight_DK + self.bias_K
        return out

    def probabilities(self, features_RD: Features) -> Floats:
        """Calibrated [R, K]."""
        return probabilities(self.logits(features_RD), self.temperature)

    def classes(self, values: Sequence[str]) -> NDArray[np.int64]:
        """The class of each value, -1 for one that is no candidate."""
        place = {value: k for k, value in enumerate(self.values)}
        return np.array([place.get(value, -1) for value in values], np.int64)


def fit_head(
    train_RD: Features, train_values: Sequence[str], held_out_RD: Features, held_out_values: Sequence[str]
) -> AttributeHead:
    """The classifier fitted on the training records; penalty and temperature are chosen on the held-out ones.

    Raises:
        ValueError: there are no training records.
    """
    if len(train_values) == 0:
        raise ValueError("no record has the attribute; expected some to learn its values from")
    heads = [_fit(train_RD, train_values, c) for c in INVERSE_STRENGTHS[: 1 if len(set(train_values)) == 1 else None]]
    calibrated = [_calibrated(head, held_out_RD, held_out_values) for head in heads]
    return min(calibrated, key=lambda pair: pair[1])[0]


def _calibrated(head: AttributeHead, features_RD: Features, values: Sequence[str]) -> tuple[AttributeHead, float]:
    """The head with its temperature, and the mean negative log-likelihood of the values that it knows."""
    logits_RK, class_R = head.logits(features_RD), head.classes(values)
    temperature = fit_temperature(logits_RK, class_R)
    known = class_R >= 0
    log_probability_RK = log_softmax(logits_RK[known] / temperature, axis=1)
    loss = -log_probability_RK[np.arange(known.sum()), class_R[known]].mean() if known.any() else 0.0
    calibrated = AttributeHead(head.values, head.weight_DK, head.bias_K, temperature, head.inverse_strength)
    return calibrated, float(loss)


def _fit(features_RD: Features, values: Sequence[str], inverse_strength: float) -> AttributeHead:
    known = tuple(sorted(set(values)))
    if len(known) == 1:
        return AttributeHead(known, np.zeros((features_RD.shape[1], 1)), np.zeros(1))
    classifier = linear_classifier(inverse_strength)
    with iterations_bounded():
        classifier.fit(features_RD, np.array(values))
    scaler, regression = classifier.steps[0][1], classifier.steps[1][1]
    weight_KD, bias_K = regression.coef_.astype(np.float64), regression.intercept_.astype(np.float64)
    if len(known) == 2:
        # scikit-learn has one row for two classes: the logit of the second.
        weight_KD, bias_K = np.stack([0.0 * weight_KD[0], weight_KD[0]]), np.array([0.0, bias_K[0]])
    weight_DK = (weight_KD / scaler.scale_).T
    return AttributeHead(known, weight_DK, bias_K - scaler.mean_ @ weight_DK, inverse_strength=inverse_strength)
