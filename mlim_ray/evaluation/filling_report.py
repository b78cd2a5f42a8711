"""How well an attribute is filled on records that have it: what is printed, and written to `fill.json`.

Legend: R records, X features, K values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from mlim_ray.evaluation.attribute_head import AttributeHead, Features, fit_head
from mlim_ray.evaluation.bootstrap import bootstrap_mean
from mlim_ray.evaluation.calibration import NUM_BINS, expected_calibration_error, probabilities
from mlim_ray.evaluation.filling_features import LEVELS
from mlim_ray.evaluation.intervals import Estimate

Part = tuple[Features, Sequence[str]]
"""features and values of some records that have the attribute"""


@dataclass(frozen=True)
class FillingReport:
    """Figures of the records that were measured on; intervals are over these records."""

    attribute: str
    num_train: int
    num_val: int
    """that penalty and temperature were chosen on"""
    num_test: int
    values: list[str]
    """the candidates"""
    accuracy: Estimate
    majority: float
    """accuracy of the commonest value"""
    colour_histogram: float
    """accuracy of a classifier that sees the colours of the picture alone"""
    above_histogram: Estimate
    """accuracy less that of the colour histogram, on the same records"""
    temperature: float
    ece_before: float
    """expected calibration error of the confidence before the temperature"""
    ece: float
    """after it"""
    num_bins: int

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """What `asdict` made of a report, maybe among other facts."""
        values: dict[str, Any] = {each.name: facts[each.name] for each in fields(cls)}
        for name in ("accuracy", "above_histogram"):
            values[name] = Estimate(**values[name])
        return cls(**values)

    def lines(self) -> list[str]:
        """For a person."""
        difference = self.above_histogram
        return [
            f"{self.attribute}: {len(self.values):,} values learned from {self.num_train:,} records, chosen on "
            f"{self.num_val:,}, measured on {self.num_test:,}",
            f"accuracy {_interval(self.accuracy)}; majority {self.majority:.3f}, colour histogram "
            f"{self.colour_histogram:.3f} (difference {_interval(difference, signed=True)})",
            f"confidence: calibration error (ECE, {self.num_bins} bins) {self.ece:.3f}, before calibration "
            f"{self.ece_before:.3f}",
        ]


def fit_and_report(
    attribute: str, train: Part, val: Part, test: Part, seed: int
) -> tuple[AttributeHead, FillingReport]:
    """The head of an attribute on `filling_features`, and its figures on records that it was not fitted on.

    Raises:
        ValueError: one of the three has no records.
    """
    for name, (_, values) in (("learn from", train), ("calibrate on", val), ("measure on", test)):
        if len(values) == 0:
            raise ValueError(f"--attribute {attribute}: too few records have it: none was left to {name}")
    head = fit_head(*train, *val)
    colours = fit_head(train[0][:, -(LEVELS**3) :], train[1], val[0][:, -(LEVELS**3) :], val[1])
    features_RX, class_R = test[0], head.classes(test[1])
    logits_RK = head.logits(features_RX)
    is_right_R = logits_RK.argmax(1) == class_R
    histogram_right_R = colours.logits(features_RX[:, -(LEVELS**3) :]).argmax(1) == class_R
    majority = np.bincount(head.classes(train[1])).argmax()
    difference_R = is_right_R.astype(np.float64) - histogram_right_R
    report = FillingReport(
        attribute,
        len(train[1]),
        len(val[1]),
        len(test[1]),
        list(head.values),
        bootstrap_mean(is_right_R.astype(np.float64), seed=seed),
        float((class_R == majority).mean()),
        float(histogram_right_R.mean()),
        bootstrap_mean(difference_R, seed=seed),
        head.temperature,
        expected_calibration_error(probabilities(logits_RK, 1.0).max(1), is_right_R),
        expected_calibration_error(probabilities(logits_RK, head.temperature).max(1), is_right_R),
        NUM_BINS,
    )
    return head, report


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{estimate.mean:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"
