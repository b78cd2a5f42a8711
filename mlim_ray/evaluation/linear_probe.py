"""Linear probe of the label, with and without the title, and the baselines it must be seen against (C10).

Legend: R records, D feature width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlim_ray.evaluation.encode import image_features
from mlim_ray.evaluation.features import bag_of_pieces, fit_pca, raw_pixels
from mlim_ray.evaluation.held_out import LabelledRecords
from mlim_ray.evaluation.linear_classifier import iterations_bounded, linear_classifier
from mlim_ray.model import MlimModel

_INVERSE_STRENGTH = 0.1
"""the same for all features, so that nothing is chosen on the held-out records"""


@dataclass(frozen=True)
class LinearProbe:
    """Accuracies on held-out records, in [0, 1]."""

    picture_only: float
    with_title: float


def linear_probe(model: MlimModel, train: LabelledRecords, held_out: LabelledRecords) -> LinearProbe:
    """Accuracy of a logistic regression on frozen mean cell states."""
    accuracies = [
        _accuracy(
            image_features(model, train.records, with_title=with_title),
            train.labels,
            image_features(model, held_out.records, with_title=with_title),
            held_out.labels,
        )
        for with_title in (False, True)
    ]
    return LinearProbe(*accuracies)


def baselines(
    untrained: MlimModel, train: LabelledRecords, held_out: LabelledRecords, vocab_size: int
) -> dict[str, float]:
    """Accuracy of what needs no pre-training.

    Keys: majority, raw_pixels (at 32x32), pca (of the encoder's width), untrained, untrained_with_title, and text_only
    (a bag of word pieces).
    """
    pixels, held_out_pixels = raw_pixels(train.records), raw_pixels(held_out.records)
    pca = fit_pca(pixels, untrained.config.hidden_size)
    pieces = np.arange(vocab_size)
    values, counts = np.unique(train.labels, return_counts=True)
    untrained_probe = linear_probe(untrained, train, held_out)
    return {
        "majority": float(np.mean(held_out.labels == values[counts.argmax()])),
        "raw_pixels": _accuracy(pixels, train.labels, held_out_pixels, held_out.labels),
        "pca": _accuracy(pca.transform(pixels), train.labels, pca.transform(held_out_pixels), held_out.labels),
        "untrained": untrained_probe.picture_only,
        "untrained_with_title": untrained_probe.with_title,
        "text_only": _accuracy(
            bag_of_pieces(train.records, pieces),
            train.labels,
            bag_of_pieces(held_out.records, pieces),
            held_out.labels,
        ),
    }


def _accuracy(
    train_RD: NDArray[np.float32],
    train_labels: NDArray[np.str_],
    held_out_RD: NDArray[np.float32],
    held_out_labels: NDArray[np.str_],
) -> float:
    if len(np.unique(train_labels)) < 2:
        return float(np.mean(held_out_labels == train_labels[0]))
    classifier = linear_classifier(_INVERSE_STRENGTH)
    with iterations_bounded():
        classifier.fit(train_RD, train_labels)
    return float(classifier.score(held_out_RD, held_out_labels))
