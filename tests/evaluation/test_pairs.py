"""The task of pairs as a whole: figures against references, what the generated catalogue allows, what is claimed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.config.pairs import PairsConfig
from mlim_ray.evaluation.average_precision import average_precision, over_products
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.bootstrap import bootstrap
from mlim_ray.evaluation.pair_baselines import jaccard, oracles, plain_baselines
from mlim_ray.evaluation.pair_task import PairTask, Scores, make_task
from mlim_ray.evaluation.pairs import Arm, PairsResult, pairs, summarise
from mlim_ray.evaluation.result import ResultTable
from tests.builders import make_model
from tests.evaluation.catalogue import MAX_TOKENS, catalogue_examples

WITH, WITHOUT = (Arm("a model", "siamese", dropout) for dropout in (True, False))


@pytest.fixture(scope="module")
def task() -> PairTask:
    train, test, tokenizer = catalogue_examples(9_000)
    return make_task(train, test, tokenizer, PairsConfig(num_train_positives=1_500), 0)


@pytest.fixture(scope="module")
def small() -> PairTask:
    train, test, tokenizer = catalogue_examples(900)
    return make_task(train, test, tokenizer, PairsConfig(), 0)


def brute_average_precision(is_same: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the positives of the precision at their score, ties with them included."""
    precisions = [is_same[scores >= score].mean() for score in scores[is_same]]
    return float(np.mean(precisions))


def scores_of(task: PairTask, noise: float, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    is_same_P = task.test.pairs.is_same_P
    return {shown: is_same_P + noise * rng.normal(size=len(is_same_P)) for shown in ("image", "text", "both")}


def test_neither_titles_nor_pictures_tell_products_apart_and_both_do_better(task: PairTask) -> None:
    """The most that can be made of either side of the generated catalogue stays under 0.9."""
    (scores,) = oracles(task).values()
    is_same_P = task.test.pairs.is_same_P
    reached = {shown: average_precision_score(is_same_P, of_pairs) for shown, of_pairs in scores.items()}
    assert 0.6 < reached["image"] < 0.9 and 0.6 < reached["text"] < 0.9
    assert reached["both"] > max(reached["image"], reached["text"]) + 0.05
    # What agreement alone tells, by hand: no picture tells two products of one look apart.
    examples, test_pairs = task.test.examples, task.test.pairs
    looks = [examples.labels, *(examples.attributes[name] for name in ("colour", "pattern", "material"))]
    same_look_P = np.all([of[test_pairs.first_P] == of[test_pairs.second_P] for of in looks], axis=0)
    assert same_look_P[is_same_P].all()
    assert reached["image"] <= is_same_P.sum() / same_look_P.sum() + 0.02


def test_oracles_are_for_the_generated_catalogue_alone(small: PairTask) -> None:
    assert set(oracles(small)) == {"oracle that knows the generator"}
    foreign = replace(small.train.examples, texts=["a photo of a dog"] * len(small.train.examples))
    assert oracles(replace(small, train=replace(small.train, examples=foreign))) == {}
    bare = replace(small.train.examples, attributes={})
    assert oracles(replace(small, train=replace(small.train, examples=bare))) == {}


def test_baselines(small: PairTask) -> None:
    rows = plain_baselines(small, 32)
    is_same_P = small.test.pairs.is_same_P
    assert average_precision_score(is_same_P, rows["chance"]["both"]) == pytest.approx(small.facts.balance)
    for name, columns in {
        "text equality (Jaccard of words)": {"both", "text"},
        "raw pixels": {"both", "image"},
        "PCA of pixels": {"both", "image"},
        "text equality and PCA of pixels": {"both"},
    }.items():
        assert set(rows[name]) == columns
        for scores in rows[name].values():
            assert average_precision_score(is_same_P, scores) > small.facts.balance + 0.02


def test_text_equality_is_the_share_of_common_words(small: PairTask) -> None:
    for first, second, share in zip(small.test.texts(0), small.test.texts(1), jaccard(small.test), strict=True):
        words = [word for word in set(first.split()) if word in second.split()]
        assert share == pytest.approx(len(words) / len(set(f"{first} {second}".split())))


def test_figures_are_average_precision_and_their_intervals_are_over_products(small: PairTask) -> None:
    runs = [scores_of(small, 0.7, seed) for seed in range(3)]
    result = summarise(small, {WITH: runs}, {"constant": {"both": np.zeros(small.facts.num_test_pairs)}})
    (figures,) = result.arms
    is_same_P = small.test.pairs.is_same_P
    expected = [brute_average_precision(is_same_P, run["text"]) for run in runs]
    assert figures.of_seeds["text"] == pytest.approx(expected)
    average = figures.average["text"]
    assert average.mean == pytest.approx(np.mean(expected)) and average.low < average.mean < average.high
    assert result.baselines["constant"]["both"].mean == pytest.approx(small.facts.balance)


@given(st.data())
def test_average_precision_is_scikit_learns_with_weights_and_ties(data: st.DataObject) -> None:
    num_pairs = data.draw(st.integers(1, 12))
    is_same_P = np.array([True, *data.draw(st.lists(st.booleans(), min_size=num_pairs, max_size=num_pairs))])
    score_P = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(is_same_P), max_size=len(is_same_P))), float)
    weight_P = np.array([1, *data.draw(st.lists(st.integers(0, 3), min_size=num_pairs, max_size=num_pairs))], float)
    expected = average_precision_score(is_same_P, score_P, sample_weight=weight_P)
    both = average_precision(is_same_P, score_P, np.stack([weight_P, np.ones_like(weight_P)]))
    assert both == pytest.approx([expected, average_precision_score(is_same_P, score_P)])


def test_the_interval_is_that_of_a_bootstrap_by_hand(small: PairTask) -> None:
    pairs_, scores = small.test.pairs, scores_of(small, 0.7, 0)["both"]
    products = np.unique(pairs_.product_P)

    def statistic(drawn: np.ndarray) -> float:
        rows = np.concatenate([np.flatnonzero(pairs_.product_P == products[place]) for place in drawn])
        return float(average_precision_score(pairs_.is_same_P[rows], scores[rows]))

    by_hand = bootstrap(statistic, len(products), num_draws=300)
    estimate = over_products(pairs_.is_same_P, pairs_.product_P, [scores])
    assert estimate.mean == pytest.approx(by_hand.mean)
    assert (estimate.low, estimate.high) == pytest.approx((by_hand.low, by_hand.high), abs=0.015)


def test_the_interval_holds_the_figure_of_other_products_about_as_often_as_it_says(small: PairTask) -> None:
    """Over fresh catalogues' worth of scores the 95 % interval holds the true figure."""
    task = small
    true = np.mean(
        [brute_average_precision(task.test.pairs.is_same_P, scores_of(task, 0.7, s)["both"]) for s in range(200)]
    )
    held = 0
    for seed in range(60):
        estimate = summarise(task, {WITH: [scores_of(task, 0.7, 1_000 + seed)]}, {}).arms[0].average["both"]
        held += estimate.low <= true <= estimate.high
    assert 51 <= held <= 60


def test_what_is_claimed_of_modality_dropout(small: PairTask) -> None:
    good, same = ([scores_of(small, noise, seed) for seed in range(3)] for noise in (0.4, 0.9))
    clear = summarise(small, {WITHOUT: same, WITH: good}, {"chance": {"both": np.zeros(small.facts.num_test_pairs)}})
    assert [effect.shown for effect in clear.effects] == ["both", "text", "image"]
    assert all("modality dropout helps" in told for told in clear.verdict()[:3])
    assert "the arm is ahead" in clear.verdict()[3]
    other = [scores_of(small, 0.9, seed) for seed in range(10, 13)]
    unclear = summarise(small, {WITHOUT: same, WITH: other}, {"equality": {"both": good[0]["both"]}})
    assert all("no difference found" in told for told in unclear.verdict()[:3])
    assert "the arm is behind" in unclear.verdict()[3]
    harmful = summarise(small, {WITHOUT: good, WITH: same}, {"equality": {"both": good[0]["both"]}})
    assert all("modality dropout harms" in told for told in harmful.verdict()[:3])


def test_the_whole_evaluation() -> None:
    train, test, tokenizer = catalogue_examples(700)
    special = {
        "vocab_size": tokenizer.vocab_size,
        "mask_token_id": tokenizer.mask_id,
        "pad_token_id": tokenizer.pad_id,
        "max_tokens": MAX_TOKENS,
    }
    done: list[tuple[int, int]] = []
    bench = Bench(
        make_model(0, **special),
        make_model(1, **special),
        tokenizer,
        train,
        test,
        test,
        0,
        lambda name, number, of: done.append((number, of)),
    )
    knobs = {"num_train_positives": 30, "num_test_positives": 20, "num_seeds": 2, "from_scratch": True}
    config = PairsConfig(**knobs, fine_tune=FineTuneConfig(num_epochs=0.5))
    result = pairs(bench, config)
    assert (
        len(result.arms) == 8 and len(result.effects) == 12 and all(len(a.of_seeds["both"]) == 2 for a in result.arms)
    )
    assert done[-1][0] == done[-1][1] and done == sorted(done)
    assert {"chance", "untrained encoder, cosine", "frozen encoder, cosine", "oracle that knows the generator"} <= set(
        result.baselines
    )
    check_tables(result.tables())
    assert json.loads(json.dumps(asdict(result)))["facts"]["num_products_in_both"] == 0
    again: PairsResult = pairs(bench, config)
    assert again == result


def check_tables(tables: list[ResultTable]) -> None:
    for table in tables:
        assert table.rows and all(list(row) == list(table.rows[0]) for row in table.rows)
