"""Retrieval: the picture of a title among all pictures of a pool, and the title of a picture among all titles.

Legend: T distinct titles, P distinct pictures, Q queries, C candidates, D width.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.retrieve import RetrieveConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.bootstrap import bootstrap, bootstrap_mean
from mlim_ray.evaluation.contrastive import EncoderTowers, LinearTowers, Towers, embed, train_towers
from mlim_ray.evaluation.difference import Difference, paired_difference
from mlim_ray.evaluation.encode import pooled_features
from mlim_ray.evaluation.pair_likelihood import PairMasks, pair_scores
from mlim_ray.evaluation.pool import Pool, make_pool
from mlim_ray.evaluation.ranking import Floats, Ranks, best_candidates, rank, rerank
from mlim_ray.evaluation.repeats import text_digests
from mlim_ray.evaluation.retrieval_result import (
    CHANCE,
    CONTRASTIVE,
    FROZEN,
    LINEAR,
    RERANKED,
    UNTRAINED,
    Direction,
    RetrievalResult,
    RetrievalRow,
)
from mlim_ray.evaluation.showing import Shown
from mlim_ray.model import MlimModel

DIRECTIONS: tuple[Direction, ...] = ("title to picture", "picture to title")

_Scores = dict[Direction, Floats]
"""[Q, C], the queries being titles or pictures"""


def retrieve(bench: Bench, config: RetrieveConfig) -> RetrievalResult:
    """Recalls and median ranks over the queries of a pool of test records, with intervals over the queries.

    Raises:
        ValueError: the pool has fewer than two different titles or pictures, or training has no text.
    """
    test = bench.test.records.take(slice(config.num_records))
    pool = make_pool(test)
    train = _with_text(bench.train.records).take(slice(config.num_train))
    if len(train.key_hash_R) < 2:
        raise ValueError(
            f"{len(train.key_hash_R)} training records have a text, expected two or more; check --prepare.text-column"
        )
    is_new_T = ~np.isin(text_digests(pool.titles), text_digests(train))
    scores = _all_scores(bench, config, pool, train)
    rights: dict[Direction, NDArray[np.bool_]] = {
        "title to picture": pool.right_TP,
        "picture to title": pool.right_TP.T,
    }
    is_new: dict[Direction, NDArray[np.bool_]] = {
        "title to picture": is_new_T,
        "picture to title": np.logical_not(np.any(pool.right_TP & ~is_new_T[:, None], axis=0)),
    }
    ranks = {
        (direction, way): rank(some[direction], rights[direction])
        for direction in DIRECTIONS
        for way, some in scores.items()
    }
    return RetrievalResult(
        num_records=len(test.key_hash_R),
        num_titles=len(is_new_T),
        num_pictures=len(pool.pictures.key_hash_R),
        num_titles_in_train=int((~is_new_T).sum()),
        num_without_text=len(test.key_hash_R) - len(_with_text(test).key_hash_R),
        num_train=len(train.key_hash_R),
        num_reranked=config.num_reranked,
        rows=[_row(direction, way, found, is_new[direction], bench.seed) for (direction, way), found in ranks.items()],
        differences=_differences(ranks, bench.seed),
    )


def _with_text(records: Records) -> Records:
    return records.take(np.flatnonzero((records.word_of_token_RT >= 0).any(1)))


def _all_scores(bench: Bench, config: RetrieveConfig, pool: Pool, train: Records) -> dict[str, _Scores]:
    device = bench.model.device
    towers: dict[str, Towers] = {
        LINEAR: LinearTowers(train, config.projection_width, bench.seed, device),
        UNTRAINED: EncoderTowers(bench.untrained, config.projection_width, bench.seed),
        CONTRASTIVE: EncoderTowers(bench.model, config.projection_width, bench.seed),
    }
    scores = {
        CHANCE: _both_ways(np.zeros(pool.right_TP.shape)),
        FROZEN: _both_ways(_frozen_similarity(bench.model, pool, train)),
    }
    for way, some in towers.items():
        train_towers(
            some,
            train,
            config.contrastive,
            config.temperature,
            bench.seed,
            partial(bench.on_progress, f"retrieve: {way}"),
        )
        scores[way] = _both_ways(embed(some, pool.titles, "text") @ embed(some, pool.pictures, "image").T)
    scores[RERANKED] = _reranked(bench, config, pool, scores[CONTRASTIVE])
    return scores


def _both_ways(scores_TP: Floats) -> _Scores:
    return {"title to picture": scores_TP, "picture to title": scores_TP.T}


def _frozen_similarity(model: MlimModel, pool: Pool, train: Records) -> Floats:
    """Cosines [T, P] of pooled states, each side less its mean over training records (our choice): bare states of the
    two sides differ by an offset that is larger than what tells records apart."""
    sides = []
    both: tuple[tuple[Shown, Records], ...] = (("text", pool.titles), ("image", pool.pictures))
    for shown, records in both:
        mean_D = pooled_features(model, train, shown).mean(0)
        states = pooled_features(model, records, shown).astype(np.float64) - mean_D
        sides.append(states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12))
    return sides[0] @ sides[1].T


def _reranked(bench: Bench, config: RetrieveConfig, pool: Pool, scores: _Scores) -> _Scores:
    """The best candidates of each query put in order by the likelihood of their pair; a pair that both directions ask
    for is scored once."""
    pictures_TK = best_candidates(scores["title to picture"], config.num_reranked)
    titles_PK = best_candidates(scores["picture to title"], config.num_reranked)
    asked = {
        "title to picture": np.zeros(pool.right_TP.shape, bool),
        "picture to title": np.zeros(pool.right_TP.T.shape, bool),
    }
    np.put_along_axis(asked["title to picture"], pictures_TK, True, axis=1)
    np.put_along_axis(asked["picture to title"], titles_PK, True, axis=1)
    title_S, picture_S = np.nonzero(asked["title to picture"] | asked["picture to title"].T)
    found_TP = np.full(pool.right_TP.shape, np.nan)
    found_TP[title_S, picture_S] = pair_scores(
        bench.model,
        pool,
        title_S,
        picture_S,
        PairMasks(config.num_masks, config.hidden_ratio, bench.seed),
        lambda done, of: bench.on_progress("retrieve: scoring pairs", done, of),
    )
    return {
        direction: rerank(scores[direction], np.where(asked[direction], finer, np.nan))
        for direction, finer in _both_ways(found_TP).items()
    }


def _row(direction: Direction, way: str, ranks: Ranks, is_new_Q: NDArray[np.bool_], seed: int) -> RetrievalRow:
    expected_Q = ranks.expected()
    at_1, at_5, at_10 = (bootstrap_mean(ranks.hits_at(num_first), seed=seed) for num_first in (1, 5, 10))
    median = bootstrap(lambda index: float(np.median(expected_Q[index])), len(expected_Q), seed=seed)
    new = bootstrap_mean(ranks.hits_at(10)[is_new_Q], seed=seed) if is_new_Q.any() else None
    return RetrievalRow(direction, way, at_1, at_5, at_10, median, new)


def _differences(ranks: dict[tuple[Direction, str], Ranks], seed: int) -> list[Difference]:
    compared = (
        (CONTRASTIVE, LINEAR, 10),
        (CONTRASTIVE, UNTRAINED, 10),
        (RERANKED, CONTRASTIVE, 1),
        (FROZEN, CHANCE, 10),
    )
    return [
        paired_difference(
            direction,
            way,
            other,
            f"R@{num_first}",
            ranks[direction, way].hits_at(num_first),
            ranks[direction, other].hits_at(num_first),
            seed,
        )
        for direction in DIRECTIONS
        for way, other, num_first in compared
    ]
