"""Telling a column of labels from the picture, the text, or both: frozen features, and a fine-tuned encoder, beside
what needs no pre-training (contract C10).

Legend: R records, D feature width.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlim_ray.config.classify import ClassifyConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.bootstrap import bootstrap_mean, bootstrap_within
from mlim_ray.evaluation.classification_result import (
    BAG,
    FINE_TUNED,
    LINEAR,
    MAJORITY,
    NEIGHBOURS,
    PCA,
    PIXELS,
    PRE_TRAINED,
    UNTRAINED,
    ClassificationResult,
    ClassificationRow,
)
from mlim_ray.evaluation.difference import Difference, paired_difference
from mlim_ray.evaluation.encode import pooled_features
from mlim_ray.evaluation.features import bag_of_pieces, fit_pca, pieces_of, raw_pixels
from mlim_ray.evaluation.label_tuning import tuned_predictions
from mlim_ray.evaluation.labelled import LabelledSplits, labelled_splits
from mlim_ray.evaluation.linear_classifier import iterations_bounded, linear_classifier
from mlim_ray.evaluation.repeats import num_repeated
from mlim_ray.evaluation.showing import SHOWN, Shown

Features = NDArray[np.float32]

INVERSE_STRENGTHS = (0.01, 0.1, 1.0)
"""of the linear probe's L2 penalty, the strongest penalty first: of equally good ones it is taken"""
NUMS_NEIGHBOURS = (20, 5, 1)
"""of the k-NN, the smoothest first"""


class _Told(NamedTuple):
    """What one classifier said of the test records."""

    predicted_R: NDArray[np.int64]
    chosen: str | None = None
    """what was chosen on val"""
    val_accuracy: float | None = None
    """with it"""
    classifier: Any = None
    """as it was fitted on training records"""


_Key = tuple[str, Shown, str]
"""where features come from, what is shown, how labels are told"""


def classify(bench: Bench, config: ClassifyConfig) -> ClassificationResult:
    """Accuracy and macro F1 over the test records that have a label, with intervals over these records.

    Nothing is chosen on test: the penalty and the number of neighbours are those that are best on val.

    Raises:
        ValueError: there is no such column, or fewer than two labels in training, or a split without any.
    """
    splits = labelled_splits(bench, config.column, config.num_train, config.num_val, config.num_test)
    told = _frozen(bench, splits)
    told |= _fine_tuned(bench, splits, config, told)
    true_R = splits.test.label_R
    rows = [_row(key, said, true_R, bench.seed) for key, said in told.items()]
    commonest = np.bincount(splits.train.label_R).argmax()
    majority = _Told(np.full(len(true_R), commonest))
    return ClassificationResult(
        column=config.column,
        num_train=len(splits.train),
        num_val=len(splits.val),
        num_test=len(splits.test),
        num_labels=splits.num_labels,
        num_rare_labels=splits.num_rare_labels,
        num_unseen=int((true_R >= splits.num_labels).sum()),
        num_without=splits.num_without,
        num_texts_in_train=num_repeated(splits.test.records, splits.train.records, "text"),
        num_pictures_in_train=num_repeated(splits.test.records, splits.train.records, "image"),
        rows=[_row((MAJORITY, "image", "none"), majority, true_R, bench.seed), *rows],
        differences=_differences(told, true_R, bench.seed),
    )


def macro_f1(true_R: NDArray[np.int64], predicted_R: NDArray[np.int64]) -> float:
    """The mean F1 of the labels that occur in `true_R`, as scikit-learn's `f1_score(labels=unique(true_R),
    average="macro")` gives it; counted here because an interval takes it a thousand times.

    A label that is only predicted has no F1 of its own: it already costs the true one its recall.
    """
    num_labels = int(max(true_R.max(), predicted_R.max())) + 1
    true_L, predicted_L, both_L = (
        np.bincount(some_R, minlength=num_labels) for some_R in (true_R, predicted_R, true_R[true_R == predicted_R])
    )
    occurs_L = true_L > 0
    return float((2 * both_L[occurs_L] / (true_L + predicted_L)[occurs_L]).mean())


def _frozen(bench: Bench, splits: LabelledSplits) -> dict[_Key, _Told]:
    """Linear probe and k-NN on all features that are not trained on the labels."""
    told: dict[_Key, _Told] = {}
    kinds = list(_features(bench, splits))
    for done, (source, shown, features_of) in enumerate(kinds):
        bench.on_progress("classify: frozen features", done, len(kinds))
        train_RD, val_RD, test_RD = (features_of(part.records) for part in (splits.train, splits.val, splits.test))
        for way, candidates in (
            (LINEAR, {f"C={c:g}": linear_classifier(c) for c in INVERSE_STRENGTHS}),
            (NEIGHBOURS, {f"k={k}": _neighbours(min(k, len(train_RD))) for k in NUMS_NEIGHBOURS}),
        ):
            told[source, shown, way] = _best_on_val(
                candidates, train_RD, splits.train.label_R, val_RD, splits.val.label_R, test_RD
            )
    bench.on_progress("classify: frozen features", len(kinds), len(kinds))
    return told


def _features(bench: Bench, splits: LabelledSplits) -> Iterator[tuple[str, Shown, Callable[[Records], Features]]]:
    pca = fit_pca(raw_pixels(splits.train.records), bench.model.config.hidden_size)
    piece_ids = pieces_of(splits.train.records)
    yield PIXELS, "image", raw_pixels
    yield PCA, "image", lambda records: pca.transform(raw_pixels(records))
    if len(piece_ids) > 0:
        yield BAG, "text", lambda records: bag_of_pieces(records, piece_ids)
    for source, model in ((UNTRAINED, bench.untrained), (PRE_TRAINED, bench.model)):
        for shown in SHOWN:
            yield source, shown, partial(pooled_features, model, shown=shown)


def _neighbours(num_neighbours: int) -> Any:
    # Features have offsets and scales of their own, which a cosine of the bare ones would mostly measure.
    return make_pipeline(
        StandardScaler(), KNeighborsClassifier(num_neighbours, metric="cosine", weights="distance", algorithm="brute")
    )


def _best_on_val(
    candidates: dict[str, Any],
    train_RD: Features,
    train_labels: NDArray[np.int64],
    val_RD: Features,
    val_labels: NDArray[np.int64],
    test_RD: Features,
) -> _Told:
    scores = {}
    with iterations_bounded():
        for name, classifier in candidates.items():
            scores[name] = classifier.fit(train_RD, train_labels).score(val_RD, val_labels)
    chosen = max(scores, key=lambda name: scores[name])
    return _Told(candidates[chosen].predict(test_RD), chosen, scores[chosen], candidates[chosen])


def _fine_tuned(
    bench: Bench, splits: LabelledSplits, config: ClassifyConfig, frozen: dict[_Key, _Told]
) -> dict[_Key, _Told]:
    """The whole encoder trained on the labels, each from where its linear probe ended."""
    told: dict[_Key, _Told] = {}
    for source, model in ((UNTRAINED, bench.untrained), (PRE_TRAINED, bench.model)):
        for shown in SHOWN:
            predicted_R = tuned_predictions(
                model,
                splits.train,
                splits.test.records,
                shown,
                frozen[source, shown, LINEAR].classifier,
                config.fine_tune,
                bench.seed,
                bench.on_progress,
                f"fine-tuning the {source} on {shown}",
            )
            told[source, shown, FINE_TUNED] = _Told(predicted_R)
    return told


def _row(key: _Key, said: _Told, true_R: NDArray[np.int64], seed: int) -> ClassificationRow:
    source, shown, way = key
    predicted_R = said.predicted_R
    is_right_R = (predicted_R == true_R).astype(np.float64)
    return ClassificationRow(
        source,
        None if source == MAJORITY else shown,
        way,
        bootstrap_mean(is_right_R, seed=seed),
        bootstrap_within(lambda index: macro_f1(true_R[index], predicted_R[index]), true_R, seed=seed),
        said.chosen,
    )


def _differences(told: dict[_Key, _Told], true_R: NDArray[np.int64], seed: int) -> list[Difference]:
    """Of accuracies: those that a claim needs. Raw pixels are told by whichever way does better on val."""
    pixels: _Key = max(
        ((PIXELS, "image", way) for way in (LINEAR, NEIGHBOURS)), key=lambda key: told[key].val_accuracy or 0.0
    )
    frozen: _Key = (PRE_TRAINED, "image", LINEAR)
    tuned: _Key = (PRE_TRAINED, "image", FINE_TUNED)
    bag: _Key = (BAG, "text", LINEAR)
    picture, text = "from the picture alone", "from the text alone"
    compared: list[tuple[str, _Key, _Key]] = [
        (picture, frozen, pixels),
        (picture, tuned, pixels),
        (picture, frozen, (UNTRAINED, "image", LINEAR)),
        (picture, tuned, (UNTRAINED, "image", FINE_TUNED)),
        (text, (PRE_TRAINED, "text", LINEAR), bag),
        (text, (PRE_TRAINED, "text", FINE_TUNED), bag),
        ("from picture and text, against the text alone", (PRE_TRAINED, "both", FINE_TUNED), bag),
        ("from picture and text", (PRE_TRAINED, "both", FINE_TUNED), (UNTRAINED, "both", FINE_TUNED)),
    ]
    right_R = {key: (said.predicted_R == true_R).astype(np.float64) for key, said in told.items()}
    return [
        paired_difference(setting, _phrase(key), _phrase(other), "accuracy", right_R[key], right_R[other], seed)
        for setting, key, other in compared
        if key in told and other in told
    ]


def _phrase(key: _Key) -> str:
    source, _, way = key
    return f"the fine-tuned {source}" if way == FINE_TUNED else f"the {way} of the {source}"
