"""What a search found: the winner, the trials table, and the verdict in words."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.evaluation.evaluation import Evaluation, paper_figures
from mlim_ray.pipelines.search.journal import parameters_of, role_of


@dataclass(frozen=True)
class TrialResult:
    """A trial as the tables show it."""

    trial: int
    role: str
    state: str
    samples: int
    score: float | None
    """at the last rung that the trial reached"""
    curve: list[tuple[int, float]]
    params: dict[str, float]
    evaluation: Evaluation | None = field(repr=False, default=None)

    def row(self) -> dict[str, Any]:
        """One flat row of `trials.parquet`."""
        row: dict[str, Any] = {
            "trial": self.trial,
            "role": self.role,
            "state": self.state,
            "samples": self.samples,
            "score": self.score,
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


def trial_result(trial: FrozenTrial, evaluation: Evaluation | None) -> TrialResult:
    """A trial of the journal with its evaluation."""
    curve = sorted(trial.intermediate_values.items())
    return TrialResult(
        trial=trial.number,
        role=role_of(trial),
        state=trial.state.name,
        samples=curve[-1][0] if curve else 0,
        score=curve[-1][1] if curve else None,
        curve=curve,
        params=parameters_of(trial),
        evaluation=evaluation,
    )


def winner_of(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the lowest score among those that saw the whole budget; None if none did."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: trial.value or 0.0, default=None)


def table_bytes(results: list[TrialResult]) -> bytes:
    """The trials as the bytes of a Parquet file."""
    rows = [result.row() for result in results]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
