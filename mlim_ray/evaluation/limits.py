"""Limits of the partner probe where the records come from the generated catalogue.

The limits are those of exactly the hidden words and cells that the probe hides.
"""

from typing import NamedTuple

import numpy as np

from mlim_ray.data import synthetic
from mlim_ray.evaluation.partner_probe import HIDDEN_RATIOS, ProbeSet

_NUM_TITLES, _NUM_DRAWS = 64, 64


class ProbeLimits(NamedTuple):
    """Lower bounds of the losses with the true partner, by hidden ratio in the order of HIDDEN_RATIOS."""

    mlm: list[float]
    recon: list[float]
    recon_from_title: tuple[float, float]
    """RECON with all cells hidden: estimate and its standard error"""


def probe_limits(probe: ProbeSet, texts: list[str]) -> ProbeLimits:
    """Limits for the probe's records, whose titles are `texts`.

    With all cells hidden the RECON limit is that of the title alone, less two standard errors.
    """
    title_limit = synthetic.recon_title_limit(
        texts[:_NUM_TITLES],
        num_draws=_NUM_DRAWS,
        seed=probe.seed,
        image_size=probe.records.pixels_RHW3.shape[1],
    )
    recon = []
    for ratio in HIDDEN_RATIOS:
        hidden_ratio = float(probe.masks(ratio, 0.0).cell_hidden_BN.mean())
        limit = synthetic.recon_limit(hidden_ratio)
        recon.append(max(limit, title_limit[0] - 2 * title_limit[1]) if ratio == 1.0 else limit)
    return ProbeLimits([_mlm_limit(probe, texts, ratio) for ratio in HIDDEN_RATIOS], recon, title_limit)


def _mlm_limit(probe: ProbeSet, texts: list[str], ratio: float) -> float:
    token_hidden_BT = probe.masks(0.0, ratio).token_hidden_BT
    hidden_words, num_pieces = [], []
    for words_T, hidden_T in zip(probe.records.word_of_token_RT, token_hidden_BT, strict=True):
        num_words = int(words_T.max()) + 1
        num_pieces.append(np.bincount(words_T[words_T >= 0], minlength=num_words))
        hidden_words.append(np.bincount(words_T[hidden_T], minlength=num_words) > 0)
    return synthetic.mlm_limit(texts, hidden_words, num_pieces)
