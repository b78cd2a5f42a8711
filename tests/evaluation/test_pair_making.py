"""Pairs: what is one product, what may be paired, and that only keys decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.config.pairs import PairsConfig
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.pair_making import Pairs, make_pairs
from mlim_ray.evaluation.pair_products import products_of, split_products
from mlim_ray.evaluation.pair_task import make_task
from mlim_ray.evaluation.pair_texts import keep_words
from tests.evaluation.catalogue import catalogue_examples

TRAIN, TEST, TOKENIZER = catalogue_examples(1500)
MOST = {"num_positives": 10_000, "negatives_per_positive": 3, "num_candidates": 16, "seed": 0}


def made(examples: Examples, **changes: int) -> Pairs:
    closeness = [list(values) for values in examples.attributes.values()]
    return make_pairs(examples, list(examples.groups), closeness, **(MOST | changes))


def test_positives_are_of_one_product_and_negatives_of_two_with_one_label() -> None:
    pairs = made(TEST)
    seen = set()
    for first, second, is_same in zip(pairs.first_P, pairs.second_P, pairs.is_same_P, strict=True):
        assert first != second
        assert (TEST.groups[first] == TEST.groups[second]) == is_same
        assert TEST.labels[first] == TEST.labels[second]
        seen.add(frozenset((first, second)))
    assert len(seen) == len(pairs.first_P)
    assert pairs.balance == pytest.approx(0.25, abs=0.01)
    assert pairs.num_products == len({TEST.groups[first] for first in pairs.first_P})


def test_every_listing_of_a_product_is_paired() -> None:
    pairs = made(TEST)
    positives = np.stack([pairs.first_P, pairs.second_P])[:, pairs.is_same_P]
    several = {group for group, count in Counter(TEST.groups).items() if count > 1}
    assert set(positives.flatten()) == {row for row, group in enumerate(TEST.groups) if group in several}
    assert set(Counter(positives.flatten().tolist()).values()) == {1, 2}


def test_fewer_positives_are_of_as_many_products_as_can_be() -> None:
    pairs = made(TRAIN, num_positives=100)
    assert pairs.is_same_P.sum() == 100 == pairs.num_products


@given(seed=st.integers(0, 2**32), shuffling=st.integers(0, 2**32))
@settings(max_examples=10)
def test_the_order_of_the_records_changes_nothing(seed: int, shuffling: int) -> None:
    shuffled = TEST.take(np.random.default_rng(shuffling).permutation(len(TEST)))

    def by_key(examples: Examples) -> list[tuple[str, str, bool]]:
        pairs = made(examples, seed=seed)
        return [
            (examples.keys[first], examples.keys[second], bool(same))
            for first, second, same in zip(pairs.first_P, pairs.second_P, pairs.is_same_P, strict=True)
        ]

    assert by_key(TEST) == by_key(shuffled)


def test_other_seeds_make_other_pairs() -> None:
    assert made(TEST).second_P.tolist() != made(TEST, seed=1).second_P.tolist()


def test_negatives_are_the_closest_of_all_where_all_are_candidates() -> None:
    """Against a search by hand."""
    pairs = made(TEST, num_candidates=len(TEST), negatives_per_positive=1)
    values = np.stack([TEST.attributes[name] for name in TEST.attributes], 1)
    taken = set()
    for first, second, is_same in zip(pairs.first_P, pairs.second_P, pairs.is_same_P, strict=True):
        if is_same:
            continue
        shared = [
            int(sum(values[first] == values[other]))
            for other in range(len(TEST))
            if TEST.labels[other] == TEST.labels[first]
            and TEST.groups[other] != TEST.groups[first]
            and frozenset((first, other)) not in taken
        ]
        assert sum(values[first] == values[second]) == max(shared)
        taken.add(frozenset((first, second)))


def test_each_positive_draws_candidates_of_its_own() -> None:
    pairs = made(TRAIN, num_candidates=3)
    others = set(pairs.second_P[~pairs.is_same_P].tolist())
    # Three for each label, if all positives of one had the same.
    assert len(others) > 20 * len(set(TRAIN.labels))


def test_more_candidates_make_harder_negatives() -> None:
    def shared(num_candidates: int) -> float:
        pairs = made(TRAIN, num_candidates=num_candidates)
        columns = [values[pairs.first_P] == values[pairs.second_P] for values in TRAIN.attributes.values()]
        return float(np.mean(columns, 0)[~pairs.is_same_P].mean())

    assert shared(3) < shared(16) < shared(64)


def test_what_has_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="no product has two listings.*--pairs.match"):
        make_pairs(TEST, TEST.keys, [], **MOST)
    with pytest.raises(ValueError, match="no negatives.*--label-column"):
        make_pairs(TEST, ["the same"] * len(TEST), [], **MOST)


def test_products_by_rules() -> None:
    examples = replace(TEST, texts=["Nike men shoes", "nike Shoes", "puma shoes", ""]).take(np.arange(3))
    colours = np.array(["red", "red", None], object)
    examples = replace(examples, labels=np.array(["a", "a", "a"], object), attributes={"colour": colours})
    first, second, third = products_of(examples, ("label", "colour", "first_word"))
    assert first == second is not None and third is None
    assert products_of(examples, ("label",)) == ["a"] * 3
    with pytest.raises(ValueError, match=r"given season, expected some of group, label, first_word, colour.*season"):
        products_of(examples, ("label", "season"))


@given(st.lists(st.sampled_from("abcde")), st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", None])))
def test_no_product_is_in_both_splits(train: list[str], test: list[str | None]) -> None:
    split = split_products(train, test)
    of_train = {product for product, kept in zip(train, split.train_R, strict=True) if kept}
    of_test = {product for product, kept in zip(test, split.test_R, strict=True) if kept}
    assert not of_train & of_test and None not in of_test
    assert {product for product in test if product is not None and test.count(product) > 1} <= of_test
    assert set(train) <= of_train | of_test


def test_a_task_by_rules_keeps_products_apart_and_drops_half_of_the_words() -> None:
    config = PairsConfig(match=("label", "colour", "brand", "first_word"))
    task = make_task(TRAIN, TEST, TOKENIZER, config, 0)
    names = [
        {products_of(of, config.match)[row] for row in rows}
        for of, rows in (
            (TRAIN, [TRAIN.keys.index(key) for key in task.train.examples.keys]),
            (TEST, [TEST.keys.index(key) for key in task.test.examples.keys]),
        )
    ]
    assert not names[0] & names[1]
    facts = task.facts
    assert facts.num_products_in_both == 0 and facts.kept_words_ratio == 0.5 and facts.num_closeness_attributes == 6
    assert facts.num_left_out == len(TRAIN) + len(TEST) - len(task.train.examples) - len(task.test.examples) > 0
    assert facts.balance == pytest.approx(task.test.pairs.is_same_P.mean())
    whole = dict(zip(TRAIN.keys, TRAIN.texts, strict=True))
    for key, text in zip(task.train.examples.keys, task.train.examples.texts, strict=True):
        assert len(text.split()) == round(len(whole[key].split()) / 2)


def test_kept_words_are_drawn_by_key_and_stand_in_their_order() -> None:
    kept = keep_words(TEST, TOKENIZER, 0.5, 3)
    reverse = np.arange(len(TEST))[::-1]
    assert keep_words(TEST.take(reverse), TOKENIZER, 0.5, 3).texts == kept.texts[::-1]
    assert keep_words(TEST, TOKENIZER, 0.5, 4).texts != kept.texts
    assert keep_words(TEST, TOKENIZER, 1.0, 3) is TEST
    dropped_places = Counter()
    for text, whole in zip(kept.texts, TEST.texts, strict=True):
        words = iter(whole.split())
        assert all(word in words for word in text.split())
        dropped_places[whole.split()[0] in text.split()] += 1
    assert 0.3 < dropped_places[True] / dropped_places.total() < 0.7
    for row, pieces in enumerate(TOKENIZER.encode(kept.texts, 24)):
        count = int(kept.records.num_tokens_R[row])
        assert kept.records.token_ids_RT[row, :count].tolist() == pieces.token_ids
        assert kept.records.word_of_token_RT[row, :count].tolist() == pieces.word_of_token
        assert (kept.records.token_ids_RT[row, count:] == 0).all()
        assert (kept.records.word_of_token_RT[row, count:] == -1).all()


def test_a_title_without_words_stays_without() -> None:
    empty = replace(TEST.take(np.arange(2)), texts=["", "bowl"])
    assert keep_words(empty, TOKENIZER, 0.5, 0).texts == ["", "bowl"]


@pytest.mark.parametrize(
    "knobs",
    [
        {"text_only_ratio": 0.6, "image_only_ratio": 0.6},
        {"match": ()},
        {"match": ("label", "label")},
        {"kept_words_ratio": 0.0},
        {"kept_words_ratio": 1.5},
        {"encoding": "neither"},
    ],
)
def test_a_config_that_cannot_be_is_refused(knobs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected|should be|greater|less"):
        PairsConfig.model_validate(knobs)
