"""Linear probe of the label, with and without the title, and the baselines it must be seen against (C10).

Legend: R records, D feature width.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlim_ray.data.records import Records
from mlim_ray.evaluation.encode import image_features
from mlim_ray.model import MlimModel

_RAW_SIDE = 32


@dataclass(frozen=True)
class LabelledRecords:
    """Records with their label; the two sets of a probe share no record."""

    records: Records
    labels: NDArray[np.str_]


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
    pixels, held_out_pixels = _raw_pixels(train.records), _raw_pixels(held_out.records)
    width = min(untrained.config.hidden_size, *pixels.shape)
    pca = PCA(width, random_state=0).fit(pixels)
    values, counts = np.unique(train.labels, return_counts=True)
    untrained_probe = linear_probe(untrained, train, held_out)
    return {
        "majority": float(np.mean(held_out.labels == values[counts.argmax()])),
        "raw_pixels": _accuracy(pixels, train.labels, held_out_pixels, held_out.labels),
        "pca": _accuracy(pca.transform(pixels), train.labels, pca.transform(held_out_pixels), held_out.labels),
        "untrained": untrained_probe.picture_only,
        "untrained_with_title": untrained_probe.with_title,
        "text_only": _accuracy(
            _bag_of_pieces(train.records, vocab_size),
            train.labels,
            _bag_of_pieces(held_out.records, vocab_size),
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
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100))
    with warnings.catch_warnings():
        # A fixed number of iterations is part of the probe's definition.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train_RD, train_labels)
    return float(classifier.score(held_out_RD, held_out_labels))


def _raw_pixels(records: Records) -> NDArray[np.float32]:
    pixels = records.pixels_RHW3
    if pixels.shape[1] > _RAW_SIDE:
        pixels = np.stack(
            [np.asarray(Image.fromarray(p).resize((_RAW_SIDE, _RAW_SIDE), Image.Resampling.BOX)) for p in pixels]
        )
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0


def _bag_of_pieces(records: Records, vocab_size: int) -> NDArray[np.float32]:
    counts = np.zeros((len(records.key_hash_R), vocab_size), np.float32)
    row, column = np.nonzero(records.word_of_token_RT >= 0)
    np.add.at(counts, (row, records.token_ids_RT[row, column]), 1.0)
    return counts
