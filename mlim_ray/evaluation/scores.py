"""All that the `evaluation.json` of a run measures, as single numbers that runs can be compared by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PARTNER, LINEAR = "partner probe", "linear probe"
LIMIT = "limit of the generator"
"""a baseline that nothing can beat"""
CHOSEN = "chosen"
"""how the name of a column begins that tells what a run chose by its val records"""
_PICTURE_BASELINES = {"majority": "majority label", "raw_pixels": "raw pixels", "pca": "PCA of the pixels"}
_LOWER_IS_BETTER = ("rank", "loss", "error", "ece", "mlm", "recon")
"""words in the name of a figure of `mlim-ray evaluate` whose least value is the best"""


@dataclass(frozen=True)
class Score:
    """One number."""

    task: str
    """what measured it"""
    name: str
    value: float
    higher_is_better: bool
    baselines: Mapping[str, float] = field(default_factory=dict)
    """the same of what needs no pre-training"""


def scores_of(evaluation: Mapping[str, Any]) -> list[Score]:
    """The probes' figures, then those of each task of `mlim-ray evaluate`, in the order of the file.

    The partner probe's are means over hidden ratios with the true partner, as a search ranks by (contract C5): MLM over
    the unigram entropy and RECON of hidden cells over the pixel variance.

    Args:
        evaluation: content of the file; of an unfinished run, what there is of it.
    """
    return [*_partner(evaluation.get("probe")), *_linear(evaluation.get("linear_probe")), *_tasks(evaluation)]


def _partner(probe: Mapping[str, Any] | None) -> Iterator[Score]:
    if not probe:
        return
    sides = (
        ("MLM", "mlm_paired", probe["unigram_entropy"], "word frequencies alone"),
        ("RECON", "recon_of_hidden", probe["pixel_variance"], "mean colour alone"),
    )
    for name, key, unit, known in sides:
        values = [at.get(key) for at in probe["at"]]
        if not values or None in values:
            continue
        limits = [value for at in probe["at"] if name == "MLM" and (value := at.get("mlm_limit")) is not None]
        limit = {LIMIT: float(np.mean(limits)) / unit} if len(limits) == len(values) else {}
        yield Score(PARTNER, name, float(np.mean(values)) / unit, False, {known: 1.0} | limit)


def _linear(linear: Mapping[str, Any] | None) -> Iterator[Score]:
    if not linear:
        return
    found = linear["baselines"] or {}
    of_picture = {_PICTURE_BASELINES[name]: found[name] for name in _PICTURE_BASELINES if name in found}
    for name, key, others in (
        ("picture only", "picture_only", of_picture | _named(found, {"untrained": "untrained encoder"})),
        (
            "with title",
            "with_title",
            _named(found, {"text_only": "text only", "untrained_with_title": "untrained encoder"}),
        ),
    ):
        yield Score(LINEAR, name, linear[key], True, others)


def _named(found: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    return {name: found[key] for key, name in names.items() if key in found}


def _words(row: Mapping[str, Any]) -> Iterator[str]:
    """What a row is called: the same in every run, so without what each chose for itself."""
    for column, cell in row.items():
        if isinstance(cell, str) and not column.startswith(CHOSEN):
            yield cell


def _tasks(evaluation: Mapping[str, Any]) -> Iterator[Score]:
    """Every number of every table, but counts; a row is called by its words."""
    seen = set()
    for source, found in evaluation.get("evaluations", {}).items():
        for task, result in found["tasks"].items():
            for shown in result["tables"]:
                for row in shown["rows"]:
                    words = ", ".join(_words(row))
                    for column, cell in row.items():
                        value = cell["mean"] if isinstance(cell, Mapping) else cell
                        name = f"{words}: {column}" if words else column
                        if isinstance(value, float) and (source, task, name) not in seen:
                            seen.add((source, task, name))
                            higher = not any(word in column.lower().split() for word in _LOWER_IS_BETTER)
                            yield Score(f"{task} on {source}", name, value, higher)
