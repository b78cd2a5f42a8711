"""Classification: against scikit-learn, and on labels that the picture shows, the title names, or nothing tells."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from mlim_ray.config.classify import ClassifyConfig
from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.evaluation.classification import classify, macro_f1
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
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.intervals import Estimate
from tests.evaluation.kinds import as_examples, kinds_of, make_bench, records_of

SIZES = {"train": 120, "val": 30, "test": 80}
QUICK = ClassifyConfig(fine_tune=FineTuneConfig(num_epochs=4.0, batch_size=24, learning_rate=5e-3))
BRIEF = QUICK.model_copy(update={"fine_tune": FineTuneConfig(num_epochs=0.1, learning_rate=1e-9)})
"""for what does not ask how well it is fine-tuned"""


def splits(*, picture_tells: bool = True, text_tells: bool = True, num_kinds: int = 4) -> dict[str, Examples]:
    out = {}
    for seed, (split, size) in enumerate(SIZES.items()):
        kinds = kinds_of(size, seed, num_kinds)
        records = records_of(kinds, seed, picture_tells=picture_tells, text_tells=text_tells)
        out[split] = as_examples(records, split, [f"kind {kind}" for kind in kinds], odd=[str(k % 2) for k in kinds])
    return out


def row(result: ClassificationResult, source: str, way: str, shown: str | None = "image") -> ClassificationRow:
    (found,) = [one for one in result.rows if (one.source, one.way, one.shown) == (source, way, shown)]
    return found


@pytest.fixture(scope="module")
def shown_by_picture() -> tuple[ClassificationResult, list[tuple[str, int, int]]]:
    progress: list[tuple[str, int, int]] = []
    result = classify(make_bench(splits(text_tells=False), progress=progress), QUICK)
    return result, progress


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs).T
    expected = f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    assert macro_f1(true, predicted) == pytest.approx(expected)


def test_each_way_stands_beside_its_baselines(shown_by_picture) -> None:
    result, _ = shown_by_picture
    found = {(one.source, one.shown, one.way) for one in result.rows}
    encoders = {(source, shown) for source in (UNTRAINED, PRE_TRAINED) for shown in ("image", "text", "both")}
    frozen = {(PIXELS, "image"), (PCA, "image"), (BAG, "text"), *encoders}
    assert found == {
        (MAJORITY, None, "none"),
        *((*one, way) for one in frozen for way in (LINEAR, NEIGHBOURS)),
        *((*one, FINE_TUNED) for one in encoders),
    }
    assert len(result.tables()[0].rows) == len(result.rows)
    assert (result.num_train, result.num_val, result.num_test) == tuple(SIZES.values())


def test_a_label_that_the_picture_shows_is_told_from_the_picture(shown_by_picture) -> None:
    result, progress = shown_by_picture
    for source, way in ((PIXELS, LINEAR), (PIXELS, NEIGHBOURS), (UNTRAINED, LINEAR), (PRE_TRAINED, FINE_TUNED)):
        assert row(result, source, way).accuracy.mean > 0.95, (source, way)
        assert row(result, source, way).macro_f1.mean > 0.95, (source, way)
    for way in (LINEAR, NEIGHBOURS, FINE_TUNED):
        assert row(result, PRE_TRAINED, way, "text").accuracy.mean < 0.5
    assert row(result, BAG, LINEAR, "text").accuracy.mean < 0.5
    assert not any("gives the label away" in sentence for sentence in result.verdict())
    assert all(0 <= done <= of for _, done, of in progress) and any("fine-tuning" in name for name, *_ in progress)


def test_intervals_hold_the_figure_and_choices_are_named(shown_by_picture) -> None:
    result, _ = shown_by_picture
    for one in result.rows:
        assert one.accuracy.low <= one.accuracy.mean <= one.accuracy.high
        assert (one.chosen is not None) == (one.way in (LINEAR, NEIGHBOURS))
    dumps(asdict(result))


def test_a_label_that_the_title_names_is_said_to_be_given_away() -> None:
    result = classify(make_bench(splits(picture_tells=False)), BRIEF)
    assert row(result, BAG, LINEAR, "text").accuracy.mean == 1.0
    assert row(result, PIXELS, LINEAR).accuracy.mean < 0.5
    assert row(result, PRE_TRAINED, LINEAR).accuracy.mean < 0.5, "a picture alone knows nothing of the title"
    assert any("the text gives the label away" in sentence for sentence in result.verdict())


def test_one_text_for_each_label_breaks_nothing_and_is_said() -> None:
    examples = {}
    for seed, (split, size) in enumerate(SIZES.items()):
        kinds = kinds_of(size, seed, 3)
        records = records_of(kinds, seed)
        ids = records.token_ids_RT.copy()
        ids[:, 3] = ids[:, 1]
        examples[split] = as_examples(records._replace(token_ids_RT=ids), split, kinds.astype(str))
    result = classify(make_bench(examples), BRIEF)
    assert result.num_texts_in_train == SIZES["test"]
    assert row(result, BAG, NEIGHBOURS, "text").accuracy.mean == 1.0
    said = " ".join(result.verdict())
    assert "the text gives the label away" in said and f"{SIZES['test']} of {SIZES['test']} test records" in said


def test_labels_that_are_rare_absent_or_unseen_are_counted() -> None:
    examples = splits()
    examples["train"].labels[:] = [None, "", "rare", "rare", *(["a", "b"] * 58)]
    examples["test"].labels[:] = [None, *(["unseen"] * 9), *(["a"] * 70)]
    result = classify(make_bench(examples), BRIEF)
    assert (result.num_train, result.num_test, result.num_without) == (118, 79, 3)
    assert (result.num_labels, result.num_rare_labels, result.num_unseen) == (3, 1, 9)
    assert all(one.accuracy.mean <= 70 / 79 for one in result.rows)
    said = " ".join(result.verdict())
    assert "9 of 79 test records have a label that no training record has" in said
    assert "1 of 3 labels have fewer than ten" in said


def test_any_attribute_is_a_column() -> None:
    bench = make_bench(splits(text_tells=False))
    result = classify(bench, BRIEF.model_copy(update={"column": "odd", "num_train": 100, "num_test": 30}))
    assert (result.num_labels, result.num_train, result.num_test) == (2, 100, 30)
    assert row(result, PIXELS, LINEAR).accuracy.mean > 0.95


def test_a_picture_that_training_has_too_is_counted() -> None:
    examples = splits()
    examples["test"].records.pixels_RHW3[:7] = examples["train"].records.pixels_RHW3[:7]
    result = classify(make_bench(examples), BRIEF)
    assert result.num_pictures_in_train == 7
    assert any("7 of 80 test records have a picture that a training record" in one for one in result.verdict())


def test_raw_pixels_come_first_in_the_verdict_where_they_are_better() -> None:
    blind = make_bench(splits(text_tells=False)).model
    with torch.no_grad():
        # Cells without contents: nothing of the picture reaches the states.
        for parameter in blind.image_embedder.parameters():
            parameter.zero_()
    result = classify(make_bench(splits(text_tells=False), blind), BRIEF)
    first = result.verdict()[0]
    assert first.startswith("from the picture alone: the linear probe of the pre-trained encoder is below the")
    assert PIXELS in first
    frozen = next(one for one in result.differences if UNTRAINED in one.than)
    assert frozen.is_below and not frozen.is_above


def test_the_models_stay_as_they_are_and_the_figures_repeat() -> None:
    bench = make_bench(splits())
    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    small = QUICK.model_copy(update={"num_train": 60})
    one, two = classify(bench, small), classify(bench, small)
    assert one == two
    assert all(torch.equal(value, before[name]) for name, value in bench.model.state_dict().items())


def test_choices_are_made_on_val_and_never_on_test() -> None:
    bench = make_bench(splits())
    other = splits()
    other["test"].labels[:] = other["test"].labels[::-1].copy()
    one, two = (classify(b, BRIEF.model_copy(update={"num_train": 60})) for b in (bench, make_bench(other)))
    assert [r.chosen for r in one.rows] == [r.chosen for r in two.rows]
    assert [r.accuracy for r in one.rows] != [r.accuracy for r in two.rows]


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("colour", lambda examples: None, "given the column colour, expected one of label, odd"),
        ("label", lambda examples: examples["train"].labels.fill("one"), "has 1 different values in 120 training"),
        ("label", lambda examples: examples["test"].labels.fill(None), "no record of the test split has a value"),
    ],
)
def test_what_cannot_be_told_is_refused(column: str, change, message: str) -> None:
    examples = splits()
    change(examples)
    with pytest.raises(ValueError, match=message):
        classify(make_bench(examples), BRIEF.model_copy(update={"column": column}))


def test_accuracy_is_that_of_scikit_learn_on_what_was_predicted() -> None:
    """The majority row, whose predictions are known."""
    examples = splits()
    values, counts = np.unique(examples["train"].labels.astype(str), return_counts=True)
    result = classify(make_bench(examples), BRIEF.model_copy(update={"num_train": 10_000}))
    true = examples["test"].labels.astype(str)
    predicted = np.full(len(true), values[counts.argmax()])
    found = row(result, MAJORITY, "none", None)
    assert found.accuracy.mean == pytest.approx(accuracy_score(true, predicted))
    assert found.macro_f1.mean == pytest.approx(
        f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    )
    assert isinstance(found.accuracy, Estimate)
