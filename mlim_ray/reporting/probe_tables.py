"""The probes' figures as rows of tables, and what they say in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from mlim_ray.reporting.figures import PAPER_RATIO, LinearFigures, ProbeFigures, finite

Side = Literal["mlm", "recon"]
_NO_USE = 1.05
"""Below this ratio of blank to paired a partner counts as unused (our choice)."""
_BASELINES = {
    "majority": "majority label",
    "raw_pixels": "raw pixels, 32 x 32",
    "pca": "PCA of the pixels, same width",
    "untrained": "untrained encoder, picture only",
    "text_only": "text only, bag of word pieces",
    "untrained_with_title": "untrained encoder, with title",
}


@dataclass(frozen=True)
class Yardstick:
    """One row of the linear probe's table."""

    name: str
    accuracy: float
    is_model: bool = False


@dataclass(frozen=True)
class PartnerRow:
    """Losses of one side at one hidden ratio."""

    hidden_ratio: float
    paired: float | None
    shuffled: float | None
    blank: float | None
    limit: float | None

    @property
    def shuffled_ratio(self) -> float | None:
        """How many times the loss with the true partner."""
        return _ratio(self.shuffled, self.paired)

    @property
    def blank_ratio(self) -> float | None:
        """How many times the loss with the true partner."""
        return _ratio(self.blank, self.paired)

    @property
    def closed_ratio(self) -> float | None:
        """Share of the way from blank to the limit that the true partner closes."""
        if self.blank is None or self.limit is None or self.paired is None or self.blank <= self.limit:
            return None
        return (self.blank - self.paired) / (self.blank - self.limit)


def partner_rows(probe: ProbeFigures, side: Side) -> list[PartnerRow]:
    """One row a hidden ratio; a figure that is missing or not finite is None."""
    rows = []
    for at in probe["at"]:
        figures: dict[str, Any] = dict(at)
        rows.append(
            PartnerRow(
                at["hidden_ratio"],
                *(finite(figures.get(f"{side}_{name}")) for name in ("paired", "shuffled", "blank", "limit")),
            )
        )
    return rows


def partner_reading(probe: ProbeFigures) -> list[str]:
    """What the partner probe says at the paper's ratio, one sentence a side."""
    sides: tuple[tuple[Side, str, str], ...] = (
        ("mlm", "hidden words", "picture"),
        ("recon", "hidden cells", "title"),
    )
    sentences = []
    for side, what, partner in sides:
        rows = partner_rows(probe, side)
        row = next((row for row in rows if math.isclose(row.hidden_ratio, PAPER_RATIO)), None)
        if row is None or row.blank_ratio is None:
            continue
        loss = side.upper()
        if row.blank_ratio < _NO_USE:
            sentences.append(
                f"The {partner} is hardly used: with 80 % hidden, {loss} without it is {row.blank_ratio:.2f} "
                "times that with it."
            )
            continue
        wrong = "" if row.shuffled_ratio is None else f" and {row.shuffled_ratio:.2f} times with another record's"
        sentences.append(
            f"The {partner} helps to predict {what}: with 80 % hidden, {loss} is {row.blank_ratio:.2f} times "
            f"as high without it{wrong}."
        )
    return sentences


def yardsticks(linear: LinearFigures) -> list[Yardstick]:
    """Rows of the linear probe's table: picture only with its baselines, then with the title."""
    baselines = linear["baselines"] or {}

    def known(*names: str) -> list[Yardstick]:
        return [
            Yardstick(_BASELINES[name], value) for name in names if (value := finite(baselines.get(name))) is not None
        ]

    def model(name: str, accuracy: float | None) -> list[Yardstick]:
        value = finite(accuracy)
        return [] if value is None else [Yardstick(name, value, is_model=True)]

    return [
        *known("majority", "raw_pixels", "pca", "untrained"),
        *model("this encoder, picture only", linear["picture_only"]),
        *known("text_only", "untrained_with_title"),
        *model("this encoder, with title", linear["with_title"]),
    ]


def linear_reading(linear: LinearFigures) -> list[str]:
    """How the encoder stands against raw pixels and against the text alone, said plainly (contract C10)."""
    baselines = linear["baselines"] or {}
    sentences = []
    for accuracy, baseline, name, against in (
        (linear["picture_only"], "raw_pixels", "From the picture alone", "raw pixels"),
        (linear["with_title"], "text_only", "With the title", "the text alone"),
    ):
        ours, theirs = finite(accuracy), finite(baselines.get(baseline))
        if ours is None or theirs is None:
            continue
        noise = 2 * accuracy_difference_error(ours, theirs, linear["num_held_out"])
        figures = f"{ours:.3f} against {theirs:.3f}"
        if abs(ours - theirs) <= noise:
            verdict = (
                f"does not differ from {against} by more than chance would ({figures}, two standard errors {noise:.3f})"
            )
        elif ours < theirs:
            verdict = f"is worse than {against} ({figures}): a linear classifier needs no encoder to do better"
        else:
            verdict = f"is better than {against} ({figures})"
        sentences.append(f"{name} this encoder {verdict}.")
    return sentences


def accuracy_difference_error(a: float, b: float, num_records: int) -> float:
    """Standard error of the difference of two accuracies on so many records, taken as independent."""
    return float(((a * (1 - a) + b * (1 - b)) / max(num_records, 1)) ** 0.5)


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None or b <= 0 else a / b
