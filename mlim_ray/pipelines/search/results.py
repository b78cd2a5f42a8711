"""What a search found, as the tables and the page show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.config.score import Objective, rank_score
from mlim_ray.config.space import Value
from mlim_ray.evaluation.evaluation import Evaluation, paper_figures
from mlim_ray.pipelines.search.study import (
    parameters_of,
    reason_of,
    role_of,
    rungs_of,
)


@dataclass(frozen=True)
class TrialResult:
    """A trial as the tables show it."""

    trial: int
    role: str
    state: str
    reason: str | None
    """why it failed"""
    samples: int
    score: float | None
    """what it is ranked by at the last rung that it reached; the mean of several objectives"""
    objectives: list[float] | None
    """at that rung"""
    measures: dict[str, float]
    """at that rung, by name"""
    curve: list[tuple[int, float]]
    """(samples, score) at each rung"""
    params: dict[str, Value]
    evaluation: Evaluation | None = field(repr=False, default=None)

    def row(self) -> dict[str, Any]:
        """One flat row of `trials.parquet`."""
        row: dict[str, Any] = {
            "trial": self.trial,
            "role": self.role,
            "state": self.state,
            "reason": self.reason,
            "samples": self.samples,
            "score": self.score,
            **{f"measure_{name}": value for name, value in self.measures.items()},
            **self.params,
        }
        if self.evaluation is not None:
            row |= {f"probe_{name}": value for name, value in paper_figures(self.evaluation).items()}
            linear = self.evaluation["linear_probe"]
            if linear is not None:
                row |= {
                    "linear_probe_picture_only": linear["picture_only"],
                    "linear_probe_with_title": linear["with_title"],
                }
        return row


def trial_result(
    trial: FrozenTrial, objectives: Sequence[Objective], evaluation: Evaluation | None = None
) -> TrialResult:
    """A trial of a study with its evaluation."""
    rungs = dict(sorted(rungs_of(trial).items()))
    samples = max(rungs, default=0)
    measures = rungs.get(samples, {})
    return TrialResult(
        trial=trial.number,
        role=role_of(trial),
        state=trial.state.name,
        reason=reason_of(trial),
        samples=samples,
        score=rank_score(objectives, measures) if measures else None,
        objectives=[objective.of(measures) for objective in objectives] if measures else None,
        measures=measures,
        curve=[(level, rank_score(objectives, at)) for level, at in rungs.items()],
        params=parameters_of(trial),
        evaluation=evaluation,
    )


def ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Those that saw the whole budget, best first; equals in the order of their numbers."""
    whole = [result for result in results if result.state == TrialState.COMPLETE.name and result.score is not None]
    return sorted(whole, key=lambda result: (result.score, result.trial))


def table_bytes(results: Sequence[TrialResult]) -> bytes:
    """The trials as the bytes of a Parquet file; a column whose values differ in type holds text."""
    rows = [result.row() for result in results]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return values if len(kinds) < 2 else [None if value is None else str(value) for value in values]
