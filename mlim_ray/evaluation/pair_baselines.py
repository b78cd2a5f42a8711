"""What needs no fine-tuning of an encoder, and what the generator's own knowledge reaches (contract C10).

Legend: R records, P pairs, D width of features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from mlim_ray.data import synthetic
from mlim_ray.evaluation.examples import Examples, slices
from mlim_ray.evaluation.features import fit_pca, raw_pixels
from mlim_ray.evaluation.linear_classifier import iterations_bounded, linear_classifier
from mlim_ray.evaluation.pair_task import PairSide, PairTask, Scores
from mlim_ray.evaluation.showing import SHOWN, Shown, encode_pooled
from mlim_ray.model import MlimModel

Floats = NDArray[np.float32]

_INVERSE_STRENGTH = 0.1
_RECORDS_TOGETHER = 256


def plain_baselines(task: PairTask, width: int) -> dict[str, Scores]:
    """Scores of the test pairs by what knows nothing of an encoder; `width` is that of the PCA.

    Rows: chance; text equality, which is the Jaccard index of the two titles' words; raw pixels at 32 x 32 and their
    principal components, by logistic regressions on |a - b| of the training pairs; and both of the latter together.
    """
    train, test = (raw_pixels(side.examples.records) for side in (task.train, task.test))
    pca = fit_pca(train, width)
    train_pca, test_pca = (pca.transform(pixels).astype(np.float32) for pixels in (train, test))
    words_P, test_words_P = jaccard(task.train), jaccard(task.test)
    by_pixels = _logistic(_apart(task.train, train), task, _apart(task.test, test))
    by_pca = _logistic(_apart(task.train, train_pca), task, _apart(task.test, test_pca))
    together = _logistic(
        np.column_stack([words_P, _apart(task.train, train_pca)]),
        task,
        np.column_stack([test_words_P, _apart(task.test, test_pca)]),
    )
    chance = np.zeros(len(test_words_P))
    return {
        "chance": dict.fromkeys(SHOWN, chance),
        "text equality (Jaccard of words)": {"both": test_words_P, "text": test_words_P},
        "raw pixels": {"both": by_pixels, "image": by_pixels},
        "PCA of pixels": {"both": by_pca, "image": by_pca},
        "text equality and PCA of pixels": {"both": together},
    }


def frozen_baselines(task: PairTask, model: MlimModel, name: str) -> dict[str, Scores]:
    """Scores by a frozen encoder: the cosine of the two pooled states, and a logistic regression on |a - b| and a * b
    of the training pairs, each with the same sides shown in training and test."""
    by_cosine: Scores = {}
    by_regression: Scores = {}
    for shown in SHOWN:
        train, test = (_pooled_states(model, side.examples, shown) for side in (task.train, task.test))
        first, second = (test[task.test.listings_P2[:, place]] for place in (0, 1))
        norms_P = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        by_cosine[shown] = ((first * second).sum(1) / np.maximum(norms_P, 1e-12)).astype(np.float64)
        features = (
            np.hstack([_apart(side, states), _product(side, states)]) for side, states in _sides(task, train, test)
        )
        by_regression[shown] = _logistic(next(features), task, next(features))
    return {f"{name}, cosine": by_cosine, f"{name}, linear head": by_regression}


def oracles(task: PairTask) -> dict[str, Scores]:
    """Scores by all that the generator of the catalogue lets be known of two titles, two pictures, or both: what a
    boosted classifier makes of `synthetic.compare_titles` and `compare_pictures` of the training pairs. Nothing where
    the records are not the generated catalogue's, or words were dropped."""
    try:
        train, test = (_readings(side) for side in (task.train, task.test))
    except (KeyError, ValueError):
        return {}
    scores: Scores = {}
    for shown, columns in zip(SHOWN, (slice(8, None), slice(0, 8), slice(None)), strict=True):
        classifier = HistGradientBoostingClassifier(max_iter=200, early_stopping=False, random_state=0)
        classifier.fit(train[:, columns], task.train.pairs.is_same_P)
        scores[shown] = classifier.predict_proba(test[:, columns])[:, 1]
    return {"oracle that knows the generator": scores}


def jaccard(side: PairSide) -> NDArray[np.float64]:
    """Words that both titles of a pair have, over words that either has [P], in lower case; 0 where neither has any."""
    shares = []
    for first, second in zip(side.texts(0), side.texts(1), strict=True):
        one, other = set(first.lower().split()), set(second.lower().split())
        shares.append(len(one & other) / max(1, len(one | other)))
    return np.array(shares)


def _readings(side: PairSide) -> NDArray[np.int8]:
    """[P, 12]: what the titles tell in eight columns, then what the pictures tell."""
    examples = side.examples
    columns = {"category": examples.labels, **examples.attributes}
    values = [
        {
            name: columns[name][side.listings_P2[:, place]].tolist()
            for name, attribute in synthetic.ATTRIBUTES.items()
            if attribute.is_shown
        }
        for place in (0, 1)
    ]
    titles = synthetic.compare_titles(side.texts(0), side.texts(1))
    return np.hstack([titles, synthetic.compare_pictures(values[0], values[1])])


def _sides(task: PairTask, train: Floats, test: Floats) -> tuple[tuple[PairSide, Floats], tuple[PairSide, Floats]]:
    return (task.train, train), (task.test, test)


def _apart(side: PairSide, features_RD: Floats) -> Floats:
    return np.abs(features_RD[side.pairs.first_P] - features_RD[side.pairs.second_P])


def _product(side: PairSide, features_RD: Floats) -> Floats:
    return features_RD[side.pairs.first_P] * features_RD[side.pairs.second_P]


def _logistic(train_PD: NDArray[np.floating], task: PairTask, test_PD: NDArray[np.floating]) -> NDArray[np.float64]:
    classifier = linear_classifier(_INVERSE_STRENGTH)
    with iterations_bounded():
        classifier.fit(train_PD, task.train.pairs.is_same_P)
    return np.asarray(classifier.decision_function(test_PD), np.float64)


@torch.inference_mode()
def _pooled_states(model: MlimModel, examples: Examples, shown: Shown) -> Floats:
    was_training = model.training
    model.eval()
    states = [
        encode_pooled(model, examples.records.take(part), shown).float().cpu().numpy()
        for part in slices(len(examples), _RECORDS_TOGETHER)
    ]
    model.train(was_training)
    return np.concatenate(states)
