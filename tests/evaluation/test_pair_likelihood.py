"""A pair's score against one forward pass a pair, written out."""

from __future__ import annotations

import numpy as np
import torch

from mlim_ray.evaluation.pair_likelihood import PairMasks, pair_scores
from mlim_ray.evaluation.pool import make_pool
from mlim_ray.model import MlimModel
from tests.builders import NUM_CELLS, make_model
from tests.evaluation.kinds import kinds_of, records_of


def pool_of(num_records: int, seed: int = 1):
    return make_pool(records_of(kinds_of(num_records, seed), seed))


def lively(seed: int = 0) -> MlimModel:
    """Untrained attention is so weak that pictures hardly reach the words."""
    model = make_model(seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0 if parameter.ndim > 1 else 1.0)
    return model


@torch.inference_mode()
def by_hand(model: MlimModel, ids: list[int], pixels: np.ndarray, hidden: list[int], shows_picture: bool) -> float:
    """Log-likelihood of the hidden positions of one title beside one picture."""
    tokens = torch.tensor([ids])
    token_hidden = torch.zeros_like(tokens, dtype=torch.bool)
    token_hidden[0, hidden] = True
    states = model.encode(
        torch.from_numpy(pixels / 255.0).float().permute(2, 0, 1)[None],
        tokens,
        torch.ones_like(tokens, dtype=torch.bool),
        torch.full((1, NUM_CELLS), not shows_picture),
        token_hidden,
    )
    log_probabilities = model.mlm_logits(states.tokens_BTD[0, hidden]).log_softmax(1)
    return float(sum(log_probabilities[i, ids[place]] for i, place in enumerate(hidden)))


def test_a_score_is_what_the_title_gains_from_the_picture() -> None:
    model, pool = lively(), pool_of(6)
    title_S, picture_S = np.array([0, 0, 3, 5]), np.array([0, 4, 3, 1])
    scores = pair_scores(model, pool, title_S, picture_S, PairMasks(3, 1.0, 0))
    for score, title, picture in zip(scores, title_S, picture_S, strict=True):
        ids = pool.titles.token_ids_RT[title, : pool.titles.num_tokens_R[title]].tolist()
        words, pixels = [1, 2, 3], pool.pictures.pixels_RHW3[picture]
        gain = by_hand(model, ids, pixels, words, True) - by_hand(model, ids, pixels, words, False)
        assert abs(score - 3 * gain) < 1e-4 * max(1.0, abs(gain))
    assert np.ptp(scores) > 1e-3


def test_scores_do_not_depend_on_what_they_are_batched_with() -> None:
    model, pool = lively(), pool_of(30)
    title_S, picture_S = (side.ravel() for side in np.meshgrid(np.arange(20), np.arange(20)))
    masks = PairMasks(2, 0.6, 7)
    told: list[tuple[int, int]] = []
    together = pair_scores(model, pool, title_S, picture_S, masks, lambda done, of: told.append((done, of)))
    some = np.array([3, 77, 250])
    np.testing.assert_allclose(
        together[some], pair_scores(model, pool, title_S[some], picture_S[some], masks), atol=1e-4
    )
    assert told[-1][0] == told[-1][1] == 2 * (400 + len(pool.titles.key_hash_R))
    assert not np.allclose(together, pair_scores(model, pool, title_S, picture_S, PairMasks(2, 0.6, 8)))


def test_at_least_one_word_is_hidden() -> None:
    model, pool = lively(), pool_of(6)
    every = np.arange(6)
    scores = pair_scores(model, pool, every % len(pool.titles.key_hash_R), every, PairMasks(1, 1e-9, 0))
    assert (scores != 0.0).all()


def test_the_model_goes_on_as_it_was() -> None:
    model, pool = lively().train(), pool_of(4)
    pair_scores(model, pool, np.array([0]), np.array([1]), PairMasks(1, 0.8, 0))
    assert model.training
