"""What attribute filling found, as figures, tables and sentences."""

from dataclasses import dataclass

from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.result import ResultTable
from mlim_ray.evaluation.showing import Shown

MAJORITY = "majority"
HISTOGRAM = "colour histogram"
PIXELS = "raw pixels (32x32)"
PCA = "PCA of the encoder's width"
BAG = "bag of pieces"
UNTRAINED = "untrained encoder"
UNTRAINED_COLOURS = "untrained encoder and colour histogram"
PRE_TRAINED = "pre-trained encoder"
COLOURS = "pre-trained encoder and colour histogram"
"""what the command `fill` uses, from both sides"""
_OURS = (COLOURS, PRE_TRAINED)


@dataclass(frozen=True)
class FilledWay:
    """One way of telling the value: a linear classifier on frozen features; intervals are over test records."""

    way: str
    shown: Shown | None
    """None where no record is looked at; of the text always the rest"""
    accuracy: Estimate
    macro_f1: Estimate
    above_histogram: Estimate | None
    """accuracy less that of the colour histogram, on the same records"""
    above_untrained: Estimate | None
    """accuracy less that of the same with an untrained encoder; None where no encoder was pre-trained"""
    temperature: float | None
    """chosen on val"""
    ece_before: float | None
    """expected calibration error of the confidence before the temperature"""
    ece: float | None
    """after it"""


@dataclass(frozen=True)
class AttributeFilling:
    """One attribute."""

    attribute: str
    num_values: int
    num_train: int
    num_val: int
    num_test: int
    num_unseen: int
    """test records with a value that no training record has; every way is wrong on them"""
    num_hidden: int
    """test records whose text lost a word"""
    ways: list[FilledWay]


@dataclass(frozen=True)
class FillResult:
    """How well attributes are filled."""

    attributes: list[AttributeFilling]
    passed_over: list[str]
    """attributes that were not measured, and why"""
    num_bins: int
    """of the calibration errors"""

    def tables(self) -> list[ResultTable]:
        """One for each attribute."""
        return [
            ResultTable(
                f"Filling {found.attribute}",
                f"{found.num_values} values; learned from {found.num_train} records, chosen on {found.num_val} of val, "
                f"measured on {found.num_test} of test. The words of all values are taken out of the texts (of "
                f"{found.num_hidden} of these). Linear classifiers on frozen features. Good is above the colour "
                f"histogram, and above the same with an untrained encoder. ECE has {self.num_bins} bins.",
                [
                    {
                        "shown": each.shown,
                        "told by": each.way,
                        "accuracy": each.accuracy,
                        "macro F1": each.macro_f1,
                        "above colour histogram": each.above_histogram,
                        "above untrained": each.above_untrained,
                        "ECE before": each.ece_before,
                        "ECE": each.ece,
                    }
                    for each in found.ways
                ],
            )
            for found in self.attributes
        ]

    def verdict(self) -> list[str]:
        """Each attribute against the colour histogram and an untrained encoder; then what was passed over."""
        sentences = []
        for found in self.attributes:
            for way in _OURS:
                for each in found.ways:
                    if each.way == way and each.shown in ("both", "image"):
                        sentences += _sentences(found.attribute, each)
        return [*sentences, *self.passed_over]


def _sentences(attribute: str, each: FilledWay) -> list[str]:
    told = "picture and rest of the text" if each.shown == "both" else "picture alone"
    return [
        f"{attribute}, {told}: the {each.way} {_compared(difference, other)}"
        for difference, other in (
            (each.above_histogram, "the colour histogram"),
            (each.above_untrained, "the same with an untrained encoder"),
        )
        if difference is not None
    ]


def _compared(difference: Estimate, other: str) -> str:
    interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] in accuracy"
    if difference.low > 0.0:
        return f"fills better than {other}: {interval}"
    if difference.high < 0.0:
        return f"fills worse than {other}: {interval}"
    return f"against {other}: no difference found, {interval}"
