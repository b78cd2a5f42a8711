"""What trials of a search are ranked by, written as text: `probe`, `0.7*mlm+0.3*recon`, or `mlm,recon`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MEASURES = {
    "probe": "mean of mlm and recon",
    "mlm": "MLM with the true picture, mean over hidden ratios, over the entropy of word frequencies",
    "recon": "RECON of hidden cells with the true title, mean over hidden ratios, over the variance of pixels",
    "linear_picture": "error of the linear probe on the label, from the picture alone",
    "linear_with_title": "error of the linear probe on the label, from picture and title",
}
"""What can be measured of a model between rungs, and what it is. Lower is better; nothing depends on the masks or
weights that a trial trains with (contract C5)."""
LINEAR_MEASURES = ("linear_picture", "linear_with_title")
"""Those that need labels."""

_TERM = re.compile(r"(?:(?P<weight>[0-9]+\.?[0-9]*|\.[0-9]+)\*)?(?P<name>[a-z_]+)")


@dataclass(frozen=True)
class Objective:
    """A weighted sum of measures."""

    weights: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """As it is written."""
        return "+".join(name if weight == 1.0 else f"{weight:g}*{name}" for name, weight in self.weights)

    def of(self, measures: Mapping[str, float]) -> float:
        """Its value."""
        return sum(weight * measures[name] for name, weight in self.weights)


def parse_score(text: str) -> tuple[Objective, ...]:
    """The objectives of a search; several make it look for the Pareto front.

    Raises:
        ValueError: the text names no known measures.
    """
    objectives = []
    for part in text.split(","):
        weights: dict[str, float] = {}
        for term in part.replace(" ", "").split("+"):
            match = _TERM.fullmatch(term)
            if match is None or match["name"] not in MEASURES:
                raise ValueError(
                    f"given {text!r}, expected one of {', '.join(MEASURES)}, a sum such as 0.7*mlm+0.3*recon, or "
                    "several with commas between them"
                )
            weights[match["name"]] = weights.get(match["name"], 0.0) + float(match["weight"] or 1.0)
        objectives.append(Objective(tuple(weights.items())))
    if len({objective.name for objective in objectives}) < len(objectives):
        raise ValueError(f"given {text!r}, expected each objective once")
    return tuple(objectives)


def rank_score(objectives: Sequence[Objective], measures: Mapping[str, float]) -> float:
    """What a trial is ranked by at a rung: its objective, or the mean of several (our choice)."""
    return sum(objective.of(measures) for objective in objectives) / len(objectives)
