"""What one side of a record tells a model of the other: the picture from the title alone, words with and without the
picture, and the cells that a hidden word attends to.

The records are those of `reconstruction_rows`, and what is hidden in them is the same.

Legend: B records, N cells, T token positions, S = N + T, H heads (of attention) or pixels, W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.data.records import Records
from mlim_ray.evaluation.partner_probe import PAPER_RATIO, ProbeSet
from mlim_ray.evaluation.pictures import TitlePiece, chosen_records, masks_of, picture_png, rebuild, title_pieces
from mlim_ray.masking import Masks
from mlim_ray.model import MlimModel
from mlim_ray.model.attention import last_attention
from mlim_ray.objectives import pixels_of_cells
from mlim_ray.training.batch import masked
from mlim_ray.training.tensors import to_tensors

NUM_GUESSES = 5
_DIMMED = 0.15
"""brightness of a cell that gets no attention; the one that gets most has 1"""


@dataclass(frozen=True)
class WordAttention:
    """Where a hidden word looks in the picture."""

    word: str
    """the true word, which the model was not shown"""
    cells_ratio: float
    """share of its attention that goes to cells, the rest to other tokens"""
    png: bytes
    """the true picture, the brighter the more attention a cell gets"""


@dataclass(frozen=True)
class CrossModalRow:
    """One held-out record of `reconstruction_rows`. Pictures are PNG bytes as there."""

    record: int
    """index in the probe set"""
    from_title_png: bytes
    """the model's output where it was shown the title and not a single cell"""
    from_title_error: float
    """its squared error, summed over channels, mean over pixels"""
    pieces: tuple[TitlePiece, ...]
    """of the title, 80 % of the words hidden and the picture whole"""
    pieces_without_picture: tuple[TitlePiece, ...]
    """the same words hidden, and all cells"""
    attention: tuple[WordAttention, ...]
    """of each hidden word, in the order of the title"""


def cross_modal_rows(
    model: MlimModel, probe: ProbeSet, piece_names: Sequence[str], num_records: int = 8
) -> list[CrossModalRow]:
    """What each side of some records tells of the other; the arguments are those of `reconstruction_rows`."""
    chosen = chosen_records(probe, num_records)
    records = probe.records.take(chosen)
    no_cell, words, words_alone = (
        masks_of(probe, chosen, 1.0, 0.0),
        masks_of(probe, chosen, 0.0, PAPER_RATIO),
        masks_of(probe, chosen, 1.0, PAPER_RATIO),
    )
    was_training = model.training
    model.eval()
    try:
        painted_BHW3 = rebuild(model, records, no_cell)
        seen = title_pieces(model, records, words, piece_names, NUM_GUESSES)
        unseen = title_pieces(model, records, words_alone, piece_names, NUM_GUESSES)
        attention_BTS = _attention_of_tokens(model, records, words)
    finally:
        model.train(was_training)
    cell_size = model.config.cell_size
    return [
        CrossModalRow(
            int(record),
            picture_png(np.rint(painted_BHW3[i] * 255.0).astype(np.uint8), cell_size),
            float(np.square(painted_BHW3[i] - records.pixels_RHW3[i].astype(np.float32) / 255.0).sum(2).mean()),
            seen[i],
            unseen[i],
            _looks(records, i, words.token_hidden_BT[i], attention_BTS[i], piece_names, model.config.num_cells),
        )
        for i, record in enumerate(chosen)
    ]


def _attention_of_tokens(model: MlimModel, records: Records, masks: Masks) -> NDArray[np.float32]:
    """The last layer's attention [B, T, S] of each token, mean over the heads."""
    inputs = to_tensors(masked(records, masks), model.device)
    attention_BHSS = last_attention(model, *inputs[:5])
    out: NDArray[np.float32] = attention_BHSS.mean(1)[:, model.config.num_cells :].float().cpu().numpy()
    return out


def _looks(
    records: Records,
    row: int,
    hidden_T: NDArray[np.bool_],
    attention_TS: NDArray[np.float32],
    piece_names: Sequence[str],
    num_cells: int,
) -> tuple[WordAttention, ...]:
    pixels_HW3, words_T = records.pixels_RHW3[row], records.word_of_token_RT[row]
    found = []
    for word in np.unique(words_T[hidden_T]):
        positions = np.flatnonzero(words_T == word)
        pieces = [piece_names[int(records.token_ids_RT[row, position])] for position in positions]
        cells_N = attention_TS[positions].mean(0)[:num_cells]
        found.append(
            WordAttention(
                "".join(p.removeprefix("##") for p in pieces), float(cells_N.sum()), _lit(pixels_HW3, cells_N)
            )
        )
    return tuple(found)


def _lit(pixels_HW3: NDArray[np.uint8], cells_N: NDArray[np.float32]) -> bytes:
    brightness_N = _DIMMED + (1.0 - _DIMMED) * cells_N / max(float(cells_N.max()), 1e-12)
    brightness_HW = pixels_of_cells(torch.from_numpy(brightness_N[None]), len(pixels_HW3))[0].numpy()
    lit_HW3 = np.rint(pixels_HW3 * brightness_HW[..., None]).astype(np.uint8)
    return picture_png(lit_HW3, len(pixels_HW3) // round(len(cells_N) ** 0.5))
