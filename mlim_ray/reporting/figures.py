"""The figures that the pages are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

PAPER_RATIO = 0.8
"""Hidden ratio of the paper's own figures."""

Role = Literal["paper", "light_only", "both_heavy", "alternating", "searched"]
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


@dataclass(frozen=True)
class Trial:
    """One trial of a search."""

    trial: int
    role: Role
    state: str
    """COMPLETE, PRUNED, FAIL or RUNNING"""
    samples: int
    score: float | None
    """its last score; lower is better"""
    curve: Sequence[Sequence[float]]
    """(samples, score) at each rung"""
    params: Mapping[str, Any]
    """value of every searched knob"""
    evaluation: Mapping[str, Any] | None
    """EvaluationFigures, or None where the trial was not evaluated to the end"""
    reason: str | None = None
    """why it failed"""
    objectives: Sequence[float] | None = None
    """what `score` is the mean of, at the last rung"""
    measures: Mapping[str, float] | None = None
    """by name, at the last rung"""

    @property
    def name(self) -> str:
        """How the pages call it."""
        return {
            "paper": f"trial {self.trial} (paper's setting)",
            "light_only": f"trial {self.trial} (light-only)",
            "both_heavy": f"trial {self.trial} (both 80 %)",
            "alternating": f"trial {self.trial} (alternating)",
        }.get(self.role, f"trial {self.trial}")

    @property
    def is_ranked(self) -> bool:
        """Whether it ran to the end and has a score."""
        return self.state == "COMPLETE" and finite(self.score) is not None

    @property
    def probe(self) -> ProbeFigures | None:
        """Its partner probe."""
        return None if self.evaluation is None else self.evaluation.get("probe")

    @property
    def linear_probe(self) -> LinearFigures | None:
        """Its linear probe."""
        return None if self.evaluation is None else self.evaluation.get("linear_probe")


@dataclass(frozen=True)
class Search:
    """The trials of a search and its winner."""

    trials: Sequence[Trial]
    winner: Trial
    rungs: Sequence[int]
    """samples at which trials are compared"""

    @classmethod
    def of(cls, trials: Sequence[Mapping[str, Any]], winner: int, rungs: Sequence[int] = ()) -> Search:
        """From trials as mappings with the fields of `Trial`.

        Raises:
            ValueError: the winner is not among the trials that ran to the end with a score.
        """
        known = [Trial(**trial) for trial in trials]
        best = next((trial for trial in known if trial.trial == winner and trial.is_ranked), None)
        if best is None:
            ranked = ", ".join(str(trial.trial) for trial in known if trial.is_ranked) or "none"
            raise ValueError(f"trial {winner} cannot be the winner; trials that ran to the end with a score: {ranked}")
        return cls(known, best, rungs)

    def reference(self, role: Role) -> Trial | None:
        """The trial of a role, if it was begun."""
        return next((trial for trial in self.trials if trial.role == role), None)

    def ranked(self) -> list[Trial]:
        """Trials that ran to the end, best first."""
        return sorted((trial for trial in self.trials if trial.is_ranked), key=lambda trial: trial.score or 0.0)


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
