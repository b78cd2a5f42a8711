"""Retrieval: against brute force, with shared titles and pictures, and on titles that pictures tell."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps

import numpy as np
import pytest
import torch

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.config.retrieve import RetrieveConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.pool import make_pool
from mlim_ray.evaluation.retrieval import DIRECTIONS, retrieve
from mlim_ray.evaluation.retrieval_result import (
    CHANCE,
    CONTRASTIVE,
    FROZEN,
    LINEAR,
    RERANKED,
    UNTRAINED,
    RetrievalResult,
    RetrievalRow,
)
from tests.builders import make_records
from tests.evaluation.kinds import as_examples, kinds_of, make_bench, records_of, titled

QUICK = RetrieveConfig(
    num_records=60,
    contrastive=FineTuneConfig(num_epochs=15.0, batch_size=40, learning_rate=5e-3),
    projection_width=16,
    num_reranked=4,
    num_masks=1,
)
BRIEF = QUICK.model_copy(update={"contrastive": FineTuneConfig(num_epochs=0.1, learning_rate=1e-9)})


def splits(**what: bool) -> dict[str, Examples]:
    sizes = {"train": 160, "val": 10, "test": 80}
    return {
        split: as_examples(records_of(kinds_of(size, seed), seed, **what), split, [None] * size)
        for seed, (split, size) in enumerate(sizes.items())
    }


def row(result: RetrievalResult, direction: str, way: str) -> RetrievalRow:
    (found,) = [one for one in result.rows if (one.direction, one.way) == (direction, way)]
    return found


@pytest.fixture(scope="module")
def found() -> tuple[RetrievalResult, list[tuple[str, int, int]]]:
    progress: list[tuple[str, int, int]] = []
    return retrieve(make_bench(splits(), progress=progress), QUICK), progress


def test_each_way_stands_beside_its_baselines_in_both_directions(found) -> None:
    result, progress = found
    ways = [CHANCE, FROZEN, LINEAR, UNTRAINED, CONTRASTIVE, RERANKED]
    assert [(one.direction, one.way) for one in result.rows] == [(d, w) for d in DIRECTIONS for w in ways]
    assert len(result.tables()[0].rows) == 12 and result.num_records == 60
    dumps(asdict(result))
    assert all(0 <= done <= of for _, done, of in progress) and "retrieve: scoring pairs" in {p[0] for p in progress}
    for one in result.rows:
        assert 0 <= one.recall_1.mean <= one.recall_5.mean <= one.recall_10.mean <= 1


def test_titles_that_pictures_tell_are_found_after_contrastive_tuning(found) -> None:
    result, _ = found
    for direction in DIRECTIONS:
        chance = row(result, direction, CHANCE).recall_10.mean
        for way in (LINEAR, UNTRAINED, CONTRASTIVE):
            assert row(result, direction, way).recall_10.mean > 2 * chance, way
        # The first candidates are put in another order, and no other comes among them.
        assert row(result, direction, RERANKED).recall_10 == row(result, direction, CONTRASTIVE).recall_10


def test_titles_that_pictures_do_not_tell_are_not_found() -> None:
    result = retrieve(make_bench(splits(text_tells=False)), QUICK)
    for direction in DIRECTIONS:
        chance = row(result, direction, CHANCE).recall_10.mean
        for way in (FROZEN, LINEAR, CONTRASTIVE, RERANKED):
            assert abs(row(result, direction, way).recall_10.mean - chance) < 0.15, way


def test_chance_is_the_mean_over_random_orders(found) -> None:
    result, _ = found
    right = make_pool(splits()["test"].records.take(slice(60))).right_TP
    rng = np.random.default_rng(0)
    for direction, right_QC in zip(DIRECTIONS, (right, right.T), strict=True):
        hits = [right_QC[:, rng.permutation(right_QC.shape[1])[:5]].any(1).mean() for _ in range(2_000)]
        assert row(result, direction, CHANCE).recall_5.mean == pytest.approx(np.mean(hits), abs=0.01)


def test_a_pool_has_each_title_and_each_picture_once() -> None:
    records = make_records(5, seed=3)
    words = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4]])
    records = titled(records, words)
    records.pixels_RHW3[4] = records.pixels_RHW3[3]
    pool = make_pool(records)
    assert pool.titles.key_hash_R.tolist() == records.key_hash_R[[0, 1, 3]].tolist()
    assert pool.pictures.key_hash_R.tolist() == records.key_hash_R[[0, 1, 2, 3]].tolist()
    assert pool.right_TP.tolist() == [
        [True, False, True, False],
        [False, True, False, True],
        [False, False, False, True],
    ]


def brute_force(records: Records, scores: np.ndarray, num_first: int) -> float:
    """R@K of distinct titles among distinct pictures, where no scores tie, record by record."""
    titles = [row[row != 0].tolist() for row in records.token_ids_RT]
    pictures = [row.tolist() for row in records.pixels_RHW3]
    first_pictures = [i for i, picture in enumerate(pictures) if pictures.index(picture) == i]
    hits = []
    for i, title in enumerate(titles):
        if titles.index(title) < i:
            continue
        best = sorted(first_pictures, key=lambda j, i=i: -scores[i, j])[:num_first]
        right = [pictures.index(pictures[j]) for j, other in enumerate(titles) if other == title]
        hits.append(any(j in right for j in best))
    return float(np.mean(hits))


def test_frozen_recalls_are_those_of_brute_force() -> None:
    """Cosines of pooled states, each side centred by its mean over training."""
    from mlim_ray.evaluation.encode import pooled_features

    examples = splits()
    bench = make_bench(examples)
    result = retrieve(bench, BRIEF)
    sides = []
    for shown in ("text", "image"):
        mean = pooled_features(bench.model, examples["train"].records, shown).mean(0)
        states = pooled_features(bench.model, examples["test"].records.take(slice(60)), shown) - mean
        sides.append(states.astype(float) / np.linalg.norm(states.astype(float), axis=1, keepdims=True))
    scores = sides[0] @ sides[1].T
    records = examples["test"].records.take(slice(60))
    for num_first, recall in ((1, "recall_1"), (5, "recall_5"), (10, "recall_10")):
        expected = brute_force(records, scores, num_first)
        assert getattr(row(result, "title to picture", FROZEN), recall).mean == pytest.approx(expected)


def test_shared_titles_are_counted_once_and_said() -> None:
    examples = splits()
    records = examples["test"].records
    records.token_ids_RT[:60] = records.token_ids_RT[:3].repeat(20, 0)
    words = examples["train"].records.token_ids_RT
    words[:, 1] = words[:, 2]
    words[0] = records.token_ids_RT[0]
    result = retrieve(make_bench(examples), BRIEF)
    assert (result.num_titles, result.num_pictures, result.num_titles_in_train) == (3, 60, 1)
    # Any of twenty pictures is right for a title; a picture has one right title of three.
    assert row(result, "title to picture", CHANCE).recall_1.mean == pytest.approx(1 / 3)
    assert row(result, "picture to title", CHANCE).recall_1.mean == pytest.approx(1 / 3)
    assert row(result, "picture to title", CHANCE).recall_5.mean == 1.0
    assert "60 records share 3 titles" in " ".join(result.verdict())
    assert "1 of 3 titles occur in training too" in " ".join(result.verdict())


def test_titles_seen_in_training_are_left_out_of_the_last_column() -> None:
    examples = splits()
    seen = splits()["test"].records.take(slice(60))
    examples["train"] = as_examples(seen, "train", [None] * 60)
    result = retrieve(make_bench(examples), BRIEF)
    assert result.num_titles_in_train == result.num_titles
    assert all(one.recall_10_new is None for one in result.rows)
    unseen = retrieve(make_bench(splits()), BRIEF)
    assert all(one.recall_10_new is not None for one in unseen.rows)


def test_records_without_a_text_are_left_out() -> None:
    examples = splits()
    records = examples["test"].records
    records.word_of_token_RT[:4] = -1
    records.num_tokens_R[:4] = 2
    assert retrieve(make_bench(examples), BRIEF).num_without_text == 4


def test_the_models_stay_as_they_are_and_the_figures_repeat() -> None:
    bench = make_bench(splits())
    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    config = QUICK.model_copy(update={"contrastive": FineTuneConfig(num_epochs=1.0)})
    assert retrieve(bench, config) == retrieve(bench, config)
    assert all(torch.equal(value, before[name]) for name, value in bench.model.state_dict().items())


@pytest.mark.parametrize("split", ["train", "test"])
def test_too_little_to_find_is_refused(split: str) -> None:
    examples = splits()
    examples[split].records.word_of_token_RT[:] = -1
    with pytest.raises(ValueError, match="expected two or more"):
        retrieve(make_bench(examples), BRIEF)
