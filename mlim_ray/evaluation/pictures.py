"""What a model makes of held-out records: pictures with most cells hidden, titles with most words hidden.

The masks are those of the partner probe at the paper's ratio, so any two models can be laid side by side.

Legend: B records, N image cells, T token positions, M hidden pieces of the batch, V vocabulary, H, W pixels.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mlim_ray.data.counter import draw
from mlim_ray.data.records import Records
from mlim_ray.evaluation.partner_probe import PAPER_RATIO, ProbeSet
from mlim_ray.masking import Masks
from mlim_ray.model import MlimModel
from mlim_ray.objectives import pixels_of_cells
from mlim_ray.training.batch import masked
from mlim_ray.training.tensors import to_tensors

NUM_GUESSES = 3
HIDDEN_GREY = 176
"""level of all channels where a cell is hidden"""
GRID_GREY = 128
"""level of all channels on the lines between hidden cells"""
_PICTURES = 22
_SHOWN_SIDE = 128


@dataclass(frozen=True)
class Guess:
    """A piece that the model proposes for a hidden one."""

    piece: str
    probability: float


@dataclass(frozen=True)
class TitlePiece:
    """One WordPiece of a title, as the tokenizer writes it (`##` continues a word)."""

    piece: str
    word: int
    """index of the word that it belongs to"""
    guesses: tuple[Guess, ...] = ()
    """the likeliest pieces first; empty where the piece was visible"""
    probability: float | None = None
    """what the model gave the true piece; None where it was visible"""

    @property
    def is_hidden(self) -> bool:
        """Whether the model had to predict it."""
        return bool(self.guesses)

    @property
    def is_right(self) -> bool:
        """Whether the first guess is the true piece."""
        return self.is_hidden and self.guesses[0].piece == self.piece


@dataclass(frozen=True)
class ReconstructionRow:
    """One held-out record. Pictures are PNG bytes; those larger than 128 px are reduced to at most that."""

    record: int
    """index in the probe set"""
    title: str
    input_png: bytes
    masked_png: bytes
    """hidden cells grey; enlarged, so that the lines of the grid are thin"""
    reconstruction_png: bytes
    """the model's output; every pixel is predicted"""
    composite_png: bytes
    """the input at visible cells, the model's output at hidden ones"""
    num_cells: int
    num_hidden_cells: int
    hidden_error: float | None
    """squared error summed over channels, mean over the pixels of hidden cells; None without any"""
    visible_error: float | None
    """the same over the pixels of visible cells"""
    pieces: tuple[TitlePiece, ...]


def reconstruction_rows(
    model: MlimModel, probe: ProbeSet, titles: list[str], piece_names: Sequence[str], num_records: int = 8
) -> list[ReconstructionRow]:
    """Reconstructions of records that depend on the probe's seed and keys alone, never on the model.

    Picture side: 80 % of the cells hidden, the title whole. Title side: 80 % of the words hidden, the picture
    whole.

    Args:
        model: the model to show.
        probe: held-out records and their masks.
        titles: text of each of the probe's records.
        piece_names: WordPiece of each token id.
        num_records: how many records; fewer when the probe has fewer.

    Raises:
        ValueError: there is not one title for each record.
    """
    if len(titles) != len(probe.records.key_hash_R):
        raise ValueError(
            f"{len(titles)} titles for {len(probe.records.key_hash_R)} records; pass the text of each record"
        )
    chosen = chosen_records(probe, num_records)
    records = probe.records.take(chosen)
    cells, words = (
        masks_of(probe, chosen, PAPER_RATIO, 0.0),
        masks_of(probe, chosen, 0.0, PAPER_RATIO),
    )
    was_training = model.training
    model.eval()
    try:
        rebuilt_BHW3 = rebuild(model, records, cells)
        pieces = title_pieces(model, records, words, piece_names, NUM_GUESSES)
    finally:
        model.train(was_training)
    hidden_BHW = pixels_of_cells(torch.from_numpy(cells.cell_hidden_BN), rebuilt_BHW3.shape[1]).numpy()
    return [
        _row(
            int(record),
            titles[record],
            records.pixels_RHW3[i],
            rebuilt_BHW3[i],
            cells.cell_hidden_BN[i],
            hidden_BHW[i],
            pieces[i],
        )
        for i, record in enumerate(chosen)
    ]


def chosen_records(probe: ProbeSet, num_records: int) -> NDArray[np.int64]:
    """Which of the probe's records are shown: those that a seeded lot puts first."""
    return draw(probe.seed, _PICTURES, probe.records.key_hash_R).argsort(kind="stable")[:num_records]


def masks_of(probe: ProbeSet, chosen: NDArray[np.int64], cell_ratio: float, word_ratio: float) -> Masks:
    """The probe's masks of some of its records."""
    masks = probe.masks(cell_ratio, word_ratio)
    return Masks(masks.mode_B[chosen], masks.cell_hidden_BN[chosen], masks.token_hidden_BT[chosen])


@torch.inference_mode()
def rebuild(model: MlimModel, records: Records, masks: Masks) -> NDArray[np.float32]:
    """The model's pictures [B, H, W, 3] in [0, 1]."""
    inputs = to_tensors(masked(records, masks), model.device)
    picture_B3HW = model.reconstruct(model.encode(*inputs[:5]).cells_BND)
    out: NDArray[np.float32] = picture_B3HW.float().permute(0, 2, 3, 1).cpu().numpy()
    return out


@torch.inference_mode()
def title_pieces(
    model: MlimModel, records: Records, masks: Masks, piece_names: Sequence[str], num_guesses: int
) -> list[tuple[TitlePiece, ...]]:
    """The pieces of each record's title, the hidden ones with what the model guesses."""
    inputs = to_tensors(masked(records, masks), model.device)
    states = model.encode(*inputs[:5])
    logits_MV = model.mlm_logits(states.tokens_BTD[inputs.token_hidden_BT])
    probability_MV = logits_MV.float().softmax(1)
    best = probability_MV.topk(min(num_guesses, probability_MV.shape[1]), dim=1)
    true_M = probability_MV.gather(1, inputs.token_ids_BT[inputs.token_hidden_BT][:, None])[:, 0]
    guesses: list[dict[int, tuple[tuple[Guess, ...], float]]] = [{} for _ in records.key_hash_R]
    places = inputs.token_hidden_BT.nonzero().tolist()
    for (record, position), probabilities, ids, true in zip(
        places, best.values.tolist(), best.indices.tolist(), true_M.tolist(), strict=True
    ):
        likeliest = tuple(Guess(piece_names[i], p) for i, p in zip(ids, probabilities, strict=True))
        guesses[record][position] = (likeliest, true)
    return [
        tuple(
            TitlePiece(piece_names[int(token_ids_T[position])], int(words_T[position]), *guessed.get(position, ()))
            for position in np.flatnonzero(words_T >= 0).tolist()
        )
        for token_ids_T, words_T, guessed in zip(records.token_ids_RT, records.word_of_token_RT, guesses, strict=True)
    ]


def _row(
    record: int,
    title: str,
    pixels_HW3: NDArray[np.uint8],
    rebuilt_HW3: NDArray[np.float32],
    cell_hidden_N: NDArray[np.bool_],
    hidden_HW: NDArray[np.bool_],
    pieces: tuple[TitlePiece, ...],
) -> ReconstructionRow:
    error_HW = np.square(rebuilt_HW3 - pixels_HW3.astype(np.float32) / 255.0).sum(2)
    rebuilt_levels = np.rint(rebuilt_HW3 * 255.0).astype(np.uint8)
    cell_size = len(hidden_HW) // round(len(cell_hidden_N) ** 0.5)
    return ReconstructionRow(
        record,
        title,
        picture_png(pixels_HW3, cell_size),
        masked_png(pixels_HW3, hidden_HW, cell_size),
        picture_png(rebuilt_levels, cell_size),
        picture_png(np.where(hidden_HW[..., None], rebuilt_levels, pixels_HW3), cell_size),
        len(cell_hidden_N),
        int(cell_hidden_N.sum()),
        float(error_HW[hidden_HW].mean()) if hidden_HW.any() else None,
        float(error_HW[~hidden_HW].mean()) if not hidden_HW.all() else None,
        pieces,
    )


def masked_png(pixels_HW3: NDArray[np.uint8], hidden_HW: NDArray[np.bool_], cell_size: int) -> bytes:
    """A picture as PNG with its hidden pixels grey; enlarged, so that the lines of the grid are thin."""
    covered = np.where(hidden_HW[..., None], np.uint8(HIDDEN_GREY), pixels_HW3)
    factor = _reduction(len(covered), cell_size)
    small = np.asarray(Image.fromarray(covered).reduce(factor))
    hidden = hidden_HW[::factor, ::factor]
    enlargement = max(1, _SHOWN_SIDE // len(small))
    large = small.repeat(enlargement, 0).repeat(enlargement, 1)
    hidden = hidden.repeat(enlargement, 0).repeat(enlargement, 1)
    shown_cell = cell_size // factor * enlargement
    # Two pixels between cells, so that a page which scales the picture a little does not lose a line.
    is_line = np.isin(np.arange(len(large)) % shown_cell, (0, shown_cell - 1))
    large[hidden & (is_line[:, None] | is_line[None])] = GRID_GREY
    return _encoded(large)


def picture_png(pixels_HW3: NDArray[np.uint8], cell_size: int) -> bytes:
    """A picture as PNG; a large one is reduced to at most 128 px, without mixing pixels of two cells."""
    factor = _reduction(len(pixels_HW3), cell_size)
    return _encoded(np.asarray(Image.fromarray(pixels_HW3).reduce(factor)))


def _reduction(side: int, cell_size: int) -> int:
    """The power of two that brings a side to at most 128 px without mixing pixels of two cells."""
    factor = 1
    while side // factor > _SHOWN_SIDE and factor < cell_size:
        factor *= 2
    return factor


def _encoded(pixels_HW3: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels_HW3).save(out, "png", optimize=True)
    return out.getvalue()
