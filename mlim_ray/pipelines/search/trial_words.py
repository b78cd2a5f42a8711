"""What Tune and a trial tell each other, by name; apart, since a trial's process needs no sampler and no study."""

from typing import Any

SCORE, SAMPLES, NUMBER, ROLE, PARAMETERS, SEED, REPORTED = (
    "score",
    "samples",
    "trial_number",
    "role",
    "parameters",
    "seed",
    "reported_samples",
)
FAULT, IS_OUTSIDE = "fault", "is_outside"
"""Of the result of a trial that met a mistake: the reason, and whether all trials would meet it."""
_MEASURE = "measures/"
"""Tune hands on what is nested as one name with slashes."""


def tune_result(samples: int, score: float, measures: dict[str, float]) -> dict[str, Any]:
    """What a trial tells Tune at a rung."""
    return {SAMPLES: samples, SCORE: score} | {f"{_MEASURE}{name}": value for name, value in measures.items()}


def measures_in(result: dict[str, Any]) -> dict[str, float]:
    """The measures of such a result."""
    return {name.removeprefix(_MEASURE): value for name, value in result.items() if name.startswith(_MEASURE)}
