"""The figures of a run that the pages are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

PAPER_RATIO = 0.8
"""Hidden ratio of the paper's own figures."""

MetricLine = Mapping[str, Any]
"""A line of `metrics.jsonl`."""


class RatioFigures(TypedDict):
    """Partner probe at one hidden ratio; unweighted losses, None where not probed or not known."""

    hidden_ratio: float
    mlm_paired: float | None
    mlm_shuffled: float | None
    mlm_blank: float | None
    mlm_limit: float | None
    recon_paired: float | None
    recon_shuffled: float | None
    recon_blank: float | None
    recon_limit: float | None


class ProbeFigures(TypedDict):
    """Partner probe of one model."""

    num_records: int
    split: str
    score: float
    unigram_entropy: float
    pixel_variance: float
    at: list[RatioFigures]
    recon_title_limit: Sequence[float] | None
    """estimate and standard error of RECON's limit with all cells hidden"""


class LinearFigures(TypedDict):
    """Linear probe of one model, accuracies in [0, 1], and of what needs no pre-training."""

    num_train: int
    num_held_out: int
    num_labels: int
    picture_only: float
    with_title: float
    baselines: dict[str, float] | None
    """keys: majority, raw_pixels, pca, untrained, untrained_with_title, text_only"""


class EvaluationFigures(TypedDict):
    """`evaluation.json` of a run; of a trial's evaluation only the two probes are read."""

    steps: int
    samples: int
    seconds: float
    """wall time, Ray's start included"""
    records_per_s: float | None
    """of the training loop alone"""
    num_parameters: int
    size: str
    probe: ProbeFigures
    linear_probe: LinearFigures | None


class Command(NamedTuple):
    """Something to run next."""

    purpose: str
    line: str


def finite(value: Any) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def at_paper_ratio(probe: ProbeFigures | None) -> RatioFigures | None:
    """The probe's figures at the paper's hidden ratio."""
    if probe is None:
        return None
    return next((at for at in probe["at"] if math.isclose(at["hidden_ratio"], PAPER_RATIO)), None)
