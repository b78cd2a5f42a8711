"""Pictures of a model on a fixed seeded sample, as an evaluation.

Legend: R records, H, W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlim_ray.config.pictures import PicturesConfig
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.cross_modal import CrossModalRow, cross_modal_rows
from mlim_ray.evaluation.partner_probe import ProbeSet
from mlim_ray.evaluation.pictures import ReconstructionRow, TitlePiece, reconstruction_rows
from mlim_ray.evaluation.result import ResultTable


@dataclass(frozen=True)
class PictureSample:
    """All that is shown of some records; `picture_sheets` makes PNG files of it, the run page a chapter."""

    rows: list[ReconstructionRow]
    others: list[CrossModalRow]
    mean_errors: list[float]
    """of each record, the error of the mean training picture"""


@dataclass(frozen=True)
class PictureFigures:
    """One record in figures; errors are squared, summed over channels, mean over pixels."""

    title: str
    hidden_error: float | None
    """of the hidden cells, 80 % of them, the title whole"""
    from_title_error: float
    """of the whole picture, painted from the title alone"""
    mean_error: float
    """of the mean training picture in its place"""
    num_hidden_pieces: int
    num_first: int
    """hidden pieces that are the first guess, the picture shown"""
    num_among_five: int
    num_first_without_picture: int
    num_among_five_without_picture: int


@dataclass(frozen=True)
class PicturesResult:
    """What the pictures of a sample show, in figures."""

    seed: int
    records: list[PictureFigures]

    def tables(self) -> list[ResultTable]:
        """One row a record."""
        rows: list[dict[str, str | int | float | None]] = [
            {
                "title": record.title,
                "hidden cells": record.hidden_error,
                "from title": record.from_title_error,
                "mean picture": record.mean_error,
                "pieces": record.num_hidden_pieces,
                "first": record.num_first,
                "among 5": record.num_among_five,
                "first, no picture": record.num_first_without_picture,
                "among 5, no picture": record.num_among_five_without_picture,
            }
            for record in self.records
        ]
        caption = (
            "Squared error of pictures (lower is better; the mean training picture is what needs no model) and hidden "
            "pieces found, of a seeded sample of held-out records that is the same for every model."
        )
        return [ResultTable("Pictures", caption, [dict(row) for row in rows])]

    def verdict(self) -> list[str]:
        """Counts of this sample; a few records prove nothing more."""
        pieces = sum(record.num_hidden_pieces for record in self.records)
        seen = sum(record.num_among_five for record in self.records)
        unseen = sum(record.num_among_five_without_picture for record in self.records)
        better = sum(record.from_title_error < record.mean_error for record in self.records)
        return [
            f"Of {pieces} hidden pieces in {len(self.records)} titles, {seen} are among the five likeliest guesses "
            f"with the picture and {unseen} without it.",
            f"Painted from the title alone, {better} of {len(self.records)} pictures are closer to the true one than "
            "the mean training picture is.",
        ]


def pictures(bench: Bench, config: PicturesConfig) -> PicturesResult:
    """What a model makes of hidden cells and words of a few records of the test split."""
    return picture_figures(sample_pictures(bench, config), config.seed)


def sample_pictures(bench: Bench, config: PicturesConfig) -> PictureSample:
    """The pictures themselves."""
    model, test = bench.model, bench.test
    bench.on_progress("pictures", 0, 1)
    # Only its masks and its order are used here, and neither depends on partners or yardsticks.
    probe = ProbeSet(test.records, np.arange(len(test)), config.seed, 1.0, 1.0, model.config.num_cells)
    names = [bench.tokenizer.tokenizer.id_to_token(i) or "" for i in range(model.config.vocab_size)]
    rows = reconstruction_rows(model, probe, test.texts, names, config.num_records)
    others = cross_modal_rows(model, probe, names, config.num_records)
    mean_HW3 = bench.train.records.pixels_RHW3.mean(0, dtype=np.float64) / 255.0
    errors = [float(np.square(test.records.pixels_RHW3[row.record] / 255.0 - mean_HW3).sum(2).mean()) for row in rows]
    bench.on_progress("pictures", 1, 1)
    return PictureSample(rows, others, errors)


def picture_figures(sample: PictureSample, seed: int) -> PicturesResult:
    """A sample in figures."""
    return PicturesResult(
        seed,
        [
            PictureFigures(
                row.title,
                row.hidden_error,
                other.from_title_error,
                mean_error,
                sum(piece.is_hidden for piece in other.pieces),
                _num_found(other.pieces, 1),
                _num_found(other.pieces, 5),
                _num_found(other.pieces_without_picture, 1),
                _num_found(other.pieces_without_picture, 5),
            )
            for row, other, mean_error in zip(sample.rows, sample.others, sample.mean_errors, strict=True)
        ],
    )


def _num_found(pieces: Sequence[TitlePiece], num_guesses: int) -> int:
    return sum(piece.piece in [guess.piece for guess in piece.guesses[:num_guesses]] for piece in pieces)
