"""Where masks come from: a pure function of (seed, epoch, record key, policy).

Legend: B records, N image cells, T token positions, W words.

The unit hidden in text is the word with all its pieces. How many units a ratio hides is exact up to one, the fraction
being drawn, so that its expectation is the ratio for any length (our choice; the paper leaves open whether positions
are drawn one by one). [CLS], [SEP] and padding belong to no word and are never hidden.

Text-attentive masking is drawn here as if by chance; which cells are hidden instead, as many, is chosen where the model
is (`mlim_ray.objectives.text_attentive`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config import AlternatingConfig, BlockwiseConfig, IndependentConfig, MamConfig, TextAttentiveConfig
from mlim_ray.data.counter import UInt64s, draw, unit
from mlim_ray.masking import alternating, blockwise, independent, mam
from mlim_ray.masking.policy import SIDED_MODES, Ratios, sided_ratios

PolicyConfig = MamConfig | IndependentConfig | AlternatingConfig | BlockwiseConfig | TextAttentiveConfig
Bools = NDArray[np.bool_]

# What a counter is drawn for; distinct numbers keep the draws independent.
_MODE, _CELLS, _WORDS, _CELL_FRACTION, _WORD_FRACTION, _BLOCKS = range(1, 7)


class Masks(NamedTuple):
    """What is hidden in B records."""

    mode_B: NDArray[np.int8]
    """index into `mode_names(policy)`"""
    cell_hidden_BN: Bools
    token_hidden_BT: Bools


def mode_names(policy: PolicyConfig) -> tuple[str, ...]:
    """Names of the modes that a policy draws from, in the order of `Masks.mode_B`."""
    match policy:
        case MamConfig():
            return mam.MODES
        case IndependentConfig():
            return independent.MODES
        case AlternatingConfig():
            return alternating.MODES
        case BlockwiseConfig() | TextAttentiveConfig():
            return SIDED_MODES


def draw_masks(
    policy: PolicyConfig,
    *,
    seed: int,
    epoch_B: NDArray[np.int64],
    key_hash_B: UInt64s,
    num_cells: int,
    word_of_token_BT: NDArray[np.int16],
) -> Masks:
    """Masks of B records under a policy.

    Args:
        policy: the masking config.
        seed: the run's seed.
        epoch_B: epoch in which each record is seen; masks differ from epoch to epoch.
        key_hash_B: 64-bit hash of each record's key.
        num_cells: N, cells of the image grid.
        word_of_token_BT: index of the word that a token belongs to, -1 for special tokens and padding.
    """
    uniform_B = unit(seed, epoch_B, key_hash_B, _MODE)
    lot_BN = _cell_lots(seed, epoch_B, key_hash_B, num_cells)
    if isinstance(policy, BlockwiseConfig):
        lot_BN = blockwise.block_lots(policy, lot_BN, (seed, epoch_B, key_hash_B, _BLOCKS))
    return _hide(_ratios(policy, uniform_B), lot_BN, seed, epoch_B, key_hash_B, word_of_token_BT)


def hide(
    ratios: Ratios,
    seed: int,
    epoch_B: NDArray[np.int64],
    key_hash_B: UInt64s,
    num_cells: int,
    word_of_token_BT: NDArray[np.int16],
) -> Masks:
    """Masks of B records for given ratios, each cell by itself; the arguments are those of `draw_masks`."""
    lot_BN = _cell_lots(seed, epoch_B, key_hash_B, num_cells)
    return _hide(ratios, lot_BN, seed, epoch_B, key_hash_B, word_of_token_BT)


def _cell_lots(seed: int, epoch_B: NDArray[np.int64], key_hash_B: UInt64s, num_cells: int) -> UInt64s:
    return draw(seed, epoch_B[:, None], key_hash_B[:, None], _CELLS, np.arange(num_cells)[None])


def _hide(
    ratios: Ratios,
    cell_lot_BN: UInt64s,
    seed: int,
    epoch_B: NDArray[np.int64],
    key_hash_B: UInt64s,
    word_of_token_BT: NDArray[np.int16],
) -> Masks:
    """Masks that hide the cells with the lowest lots."""
    cell_hidden_BN = _choose(
        cell_lot_BN,
        np.full(len(key_hash_B), cell_lot_BN.shape[1]),
        ratios.cell_ratio_B,
        unit(seed, epoch_B, key_hash_B, _CELL_FRACTION),
    )
    num_words_B = word_of_token_BT.max(axis=1, initial=-1).astype(np.int64) + 1
    max_words = int(num_words_B.max(initial=0))
    word_hidden_BW = _choose(
        draw(seed, epoch_B[:, None], key_hash_B[:, None], _WORDS, np.arange(max_words)[None]),
        num_words_B,
        ratios.word_ratio_B,
        unit(seed, epoch_B, key_hash_B, _WORD_FRACTION),
    )
    return Masks(ratios.mode_B, cell_hidden_BN, _pieces_of(word_hidden_BW, word_of_token_BT))


def _ratios(policy: PolicyConfig, uniform_B: NDArray[np.float64]) -> Ratios:
    match policy:
        case MamConfig():
            return mam.mam_ratios(policy, uniform_B)
        case IndependentConfig():
            return independent.independent_ratios(policy, uniform_B)
        case AlternatingConfig():
            return alternating.alternating_ratios(policy, uniform_B)
        case BlockwiseConfig() | TextAttentiveConfig():
            return sided_ratios(policy, uniform_B)


def _choose(
    lot_BU: UInt64s,
    num_units_B: NDArray[np.int64],
    ratio_B: NDArray[np.float64],
    fraction_B: NDArray[np.float64],
) -> Bools:
    """True for the units with the lowest lots: ratio * num_units of them, the fraction rounded by chance."""
    if lot_BU.shape[1] == 0:
        return np.zeros(lot_BU.shape, np.bool_)
    # A sum just below the next whole number may be rounded up to it.
    num_hidden_B = np.minimum(np.floor(ratio_B * num_units_B + fraction_B).astype(np.int64), num_units_B)
    lot_BU = np.where(np.arange(lot_BU.shape[1])[None] < num_units_B[:, None], lot_BU, np.uint64(2**64 - 1))
    # Equal lots would hide one unit more, once in 10^16 records; ranks instead would take ten times as long.
    highest_B1 = np.take_along_axis(np.sort(lot_BU, axis=1), np.maximum(num_hidden_B - 1, 0)[:, None], axis=1)
    chosen_BU: Bools = (lot_BU <= highest_B1) & (num_hidden_B > 0)[:, None]
    return chosen_BU


def _pieces_of(word_hidden_BW: Bools, word_of_token_BT: NDArray[np.int16]) -> Bools:
    in_word_BT = word_of_token_BT >= 0
    if word_hidden_BW.shape[1] == 0:
        return np.zeros_like(in_word_BT)
    hidden_BT: Bools = np.take_along_axis(word_hidden_BW, np.where(in_word_BT, word_of_token_BT, 0), axis=1)
    return hidden_BT & in_word_BT
