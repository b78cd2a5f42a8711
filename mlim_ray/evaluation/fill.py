"""Attribute filling: the value of a column, its words hidden in the text, told from the picture and the rest of it.

Legend: R records, X features, K values.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.fill import FillConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.attribute_head import Features, fit_head
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.bootstrap import bootstrap, bootstrap_mean
from mlim_ray.evaluation.calibration import (
    NUM_BINS,
    Floats,
    expected_calibration_error,
    probabilities,
)
from mlim_ray.evaluation.embedding import embed
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.features import bag_of_pieces, fit_pca, pieces_of, raw_pixels
from mlim_ray.evaluation.fill_result import (
    BAG,
    COLOURS,
    HISTOGRAM,
    MAJORITY,
    PCA,
    PIXELS,
    PRE_TRAINED,
    UNTRAINED,
    UNTRAINED_COLOURS,
    AttributeFilling,
    FilledWay,
    FillResult,
)
from mlim_ray.evaluation.filling_features import colour_histogram
from mlim_ray.evaluation.hidden_words import pieces_in, without_words, words_of
from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.macro_f1 import macro_f1
from mlim_ray.evaluation.showing import SHOWN, Shown
from mlim_ray.model import MlimModel

_WITH_COLOURS: tuple[tuple[Shown, tuple[Shown, ...]], ...] = (("image", ("image",)), ("both", SHOWN))
"""what is shown, and which states stand beside the colours"""

_UNTRAINED_OF = {PRE_TRAINED: UNTRAINED, COLOURS: UNTRAINED_COLOURS}
_NUM_WAYS = 14


def fill(bench: Bench, config: FillConfig) -> FillResult:
    """How well each attribute is told from the picture, from the rest of the text, and from both.

    Candidates are the values of the training records. The words of all of them are taken out of every text, so that
    neither what is gone nor what is left tells the value. Penalties and temperatures are chosen on val.

    Raises:
        ValueError: the set has no attributes, or none of a name.
    """
    names = config.attributes or tuple(bench.train.attributes)
    if not names:
        raise ValueError("fill: the set has no attributes; prepare it with --attribute-columns, such as base_colour")
    unknown = [name for name in names if name not in bench.train.attributes]
    if unknown:
        known = ", ".join(bench.train.attributes) or "none"
        raise ValueError(f"fill: {unknown[0]} is no attribute of the set; expected one of {known}")
    found = [_fill_one(bench, config, name) for name in names]
    filled = [each for each in found if isinstance(each, AttributeFilling)]
    return FillResult(filled, [each for each in found if isinstance(each, str)], NUM_BINS)


class _Part(NamedTuple):
    """Records of a split that have the attribute."""

    records: Records
    values: list[str]
    had_word_R: NDArray[np.bool_]
    """whether the text lost a word"""

    @classmethod
    def of(cls, examples: Examples, name: str, limit: int) -> "_Part":
        values = examples.attributes[name]
        index = np.array([i for i, value in enumerate(values) if value is not None][:limit], np.int64)
        return cls(examples.records.take(index), [str(values[i]) for i in index], np.zeros(len(index), bool))

    def without(self, words: NDArray[np.uint64]) -> "_Part":
        had_word_R: NDArray[np.bool_] = np.any(pieces_in(self.records, words), axis=1)
        return _Part(without_words(self.records, words), self.values, had_word_R)


def _fill_one(bench: Bench, config: FillConfig, name: str) -> AttributeFilling | str:
    """The figures of an attribute, or why it has none."""
    train = _Part.of(bench.train, name, config.num_train)
    val, test = (_Part.of(split, name, config.num_held_out) for split in (bench.val, bench.test))
    candidates = sorted(set(train.values))
    if len(candidates) < 2 or not val.values or not test.values:
        return (
            f"{name} was passed over: {len(candidates)} values in training, {len(val.values)} val and "
            f"{len(test.values)} test records that have it; expected two values, and a record of each split"
        )
    if len(candidates) > config.most_values:
        return f"{name} was passed over: {len(candidates)} values in training, more than --fill.most-values"
    words = words_of(candidates, bench.tokenizer)
    train, val, test = train.without(words), val.without(words), test.without(words)
    class_of = partial(_classes, {value: k for k, value in enumerate(candidates)})
    true_R = class_of(test)
    told: dict[tuple[str, Shown | None], _Told] = {(MAJORITY, None): _majority(class_of(train), len(true_R))}
    for done, (way, shown, (train_RX, val_RX, test_RX)) in enumerate(_features(bench, train, val, test)):
        bench.on_progress(f"fill {name}", done, _NUM_WAYS)
        head = fit_head(train_RX, train.values, val_RX, val.values)
        told[way, shown] = _Told(head.logits(test_RX), head.temperature)
    bench.on_progress(f"fill {name}", _NUM_WAYS, _NUM_WAYS)
    histogram = told[HISTOGRAM, "image"]
    rows = [
        _row(way, shown, each, histogram, told.get((_UNTRAINED_OF.get(way, ""), shown)), true_R, bench.seed)
        for (way, shown), each in told.items()
    ]
    return AttributeFilling(
        attribute=name,
        num_values=len(candidates),
        num_train=len(train.values),
        num_val=len(val.values),
        num_test=len(test.values),
        num_unseen=int((true_R < 0).sum()),
        num_hidden=int(test.had_word_R.sum()),
        ways=sorted(rows, key=lambda row: (None, *SHOWN).index(row.shown)),
    )


class _Told(NamedTuple):
    """What one classifier said of the test records."""

    logits_RK: Floats
    temperature: float | None
    """None where there is no confidence to speak of"""

    def right(self, true_R: NDArray[np.int64]) -> Floats:
        """1 where it is right, else 0."""
        return (self.logits_RK.argmax(1) == true_R).astype(np.float64)


def _majority(class_R: NDArray[np.int64], num_records: int) -> _Told:
    counts_K = np.bincount(class_R).astype(np.float64)
    return _Told(np.tile(counts_K, (num_records, 1)), None)


def _row(
    way: str,
    shown: Shown | None,
    told: _Told,
    histogram: _Told,
    untrained: _Told | None,
    true_R: NDArray[np.int64],
    seed: int,
) -> FilledWay:
    logits_RK, temperature = told
    told_R = logits_RK.argmax(1)
    right_R = told.right(true_R)

    def above(other: _Told | None) -> Estimate | None:
        return None if other is None or other is told else bootstrap_mean(right_R - other.right(true_R), seed=seed)

    # Values that training does not have count as one more, which nothing tells.
    label_R = np.where(true_R < 0, logits_RK.shape[1], true_R)

    def f1_of(index: NDArray[np.int64]) -> float:
        return macro_f1(label_R[index], told_R[index])

    def error_at(number: float) -> float:
        return expected_calibration_error(probabilities(logits_RK, number).max(1), right_R > 0.5)

    return FilledWay(
        way=way,
        shown=shown,
        accuracy=bootstrap_mean(right_R, seed=seed),
        macro_f1=bootstrap(f1_of, len(true_R), seed=seed),
        above_histogram=above(histogram),
        above_untrained=above(untrained),
        temperature=temperature,
        ece_before=None if temperature is None else error_at(1.0),
        ece=None if temperature is None else error_at(temperature),
    )


def _classes(place: dict[str, int], part: _Part) -> NDArray[np.int64]:
    """-1 for a value that training does not have."""
    return np.array([place.get(value, -1) for value in part.values], np.int64)


def _features(bench: Bench, *parts: _Part) -> Iterator[tuple[str, Shown, tuple[Features, Features, Features]]]:
    """All features that need no training on the attribute, of the training, val and test records."""
    train = parts[0]
    colours = [colour_histogram(part.records.pixels_RHW3) for part in parts]
    pixels = [raw_pixels(part.records) for part in parts]
    pca = fit_pca(pixels[0], bench.model.config.hidden_size)
    pieces = pieces_of(train.records)
    yield HISTOGRAM, "image", _three(colours)
    yield PIXELS, "image", _three(pixels)
    yield PCA, "image", _three([pca.transform(some).astype(np.float32) for some in pixels])
    if len(pieces):
        yield BAG, "text", _three([bag_of_pieces(part.records, pieces) for part in parts])
    for way, with_colours, model in (
        (UNTRAINED, UNTRAINED_COLOURS, bench.untrained),
        (PRE_TRAINED, COLOURS, bench.model),
    ):
        states = [_states(model, part) for part in parts]
        for shown in SHOWN:
            yield way, shown, _three([found[shown] for found in states])
        for shown, sides in _WITH_COLOURS:
            together = zip(states, colours, strict=True)
            joined = [np.concatenate([*(found[side] for side in sides), some], axis=1) for found, some in together]
            yield with_colours, shown, _three(joined)


def _states(model: MlimModel, part: _Part) -> dict[Shown, Features]:
    return embed(model, part.records, EmbedConfig())


def _three(parts: list[Features]) -> tuple[Features, Features, Features]:
    train, val, test = parts
    return train, val, test
