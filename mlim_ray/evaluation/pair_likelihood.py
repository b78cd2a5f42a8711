"""How well a picture explains a title: what its words gain in likelihood from being read beside the picture.

The score of a pair is the log-likelihood, under MLM, of the title's hidden words with the picture shown, less the same
with the picture hidden (our choice: pointwise mutual information). Without the second term the shortest title and the
commonest words would fit every picture best.

Legend: B pairs of a batch, S pairs, T titles, N image cells, W token positions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.data.counter import hash_key
from mlim_ray.data.records import Records
from mlim_ray.evaluation.examples import slices
from mlim_ray.evaluation.pool import Pool
from mlim_ray.evaluation.repeats import text_digests
from mlim_ray.masking import Ratios, hide
from mlim_ray.model import MlimModel
from mlim_ray.objectives import mlm_terms
from mlim_ray.training.batch import Batch
from mlim_ray.training.tensors import to_tensors

_TOGETHER = 256


class PairMasks(NamedTuple):
    """Which words are hidden while a pair is scored: the same for a title whatever the picture."""

    num_masks: int
    hidden_ratio: float
    seed: int


def pair_scores(
    model: MlimModel,
    pool: Pool,
    title_S: NDArray[np.int64],
    picture_S: NDArray[np.int64],
    masks: PairMasks,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Scores [S], in nats, of the pairs of these titles and pictures of the pool, summed over the masks."""
    num_records = masks.num_masks * (len(title_S) + len(pool.titles.key_hash_R))
    done = 0
    score_S = np.zeros(len(title_S))
    all_titles = np.arange(len(pool.titles.key_hash_R))
    was_training = model.training
    model.eval()
    for number in range(masks.num_masks):
        hidden_TW = _hidden(pool.titles, masks, number, model.config.num_cells)
        without_T = np.empty(len(all_titles))
        for part in slices(len(all_titles), _TOGETHER):
            without_T[part] = _log_likelihood(model, pool, all_titles[part], None, hidden_TW)
            done += len(all_titles[part])
        for part in slices(len(title_S), _TOGETHER):
            with_B = _log_likelihood(model, pool, title_S[part], picture_S[part], hidden_TW)
            score_S[part] += with_B - without_T[title_S[part]]
            done += len(with_B)
            if on_progress is not None:
                on_progress(done, num_records)
    model.train(was_training)
    return score_S


def _hidden(titles: Records, masks: PairMasks, number: int, num_cells: int) -> NDArray[np.bool_]:
    """Hidden pieces [T, W], drawn from the title alone; at least one word of each."""
    num_titles = len(titles.key_hash_R)
    key_hash_T = np.array([hash_key(digest) for digest in text_digests(titles)], np.uint64)
    ratios = Ratios(
        np.zeros(num_titles, np.int8), np.zeros(num_titles), np.full(num_titles, masks.hidden_ratio, np.float64)
    )
    epoch_T = np.full(num_titles, number, np.int64)
    hidden_TW = hide(ratios, masks.seed, epoch_T, key_hash_T, num_cells, titles.word_of_token_RT).token_hidden_BT
    return np.where(hidden_TW.any(1, keepdims=True), hidden_TW, titles.word_of_token_RT >= 0)


@torch.inference_mode()
def _log_likelihood(
    model: MlimModel,
    pool: Pool,
    title_B: NDArray[np.int64],
    picture_B: NDArray[np.int64] | None,
    hidden_TW: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Of the hidden pieces of each title, in nats [B]; without pictures all cells are hidden."""
    titles = pool.titles.take(title_B)
    num_pairs = len(title_B)
    batch = Batch(
        titles.key_hash_R,
        np.zeros(num_pairs, np.int64),
        titles.pixels_RHW3 if picture_B is None else pool.pictures.pixels_RHW3[picture_B],
        titles.token_ids_RT,
        titles.num_tokens_R,
        np.zeros(num_pairs, np.int8),
        np.full((num_pairs, model.config.num_cells), picture_B is None),
        hidden_TW[title_B],
    )
    inputs = to_tensors(batch, model.device)
    states = model.encode(*inputs[:5])
    logits_MV = model.mlm_logits(states.tokens_BTD[inputs.token_hidden_BT])
    return -mlm_terms(logits_MV, inputs.token_ids_BT, inputs.token_hidden_BT).sum_B.double().cpu().numpy()
