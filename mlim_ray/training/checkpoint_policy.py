"""Which checkpoints of a run are kept: the last ones, the best one, and one every so many steps (our choice)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlim_ray.config import PretrainConfig
from mlim_ray.masking import mode_names
from mlim_ray.objectives import loss_names
from mlim_ray.training.checkpoint_manifest import CheckpointEntry, Reason
from mlim_ray.training.meter import logged_names


@dataclass(frozen=True)
class CheckpointPolicy:
    """What is kept; the rest is removed with the next checkpoint."""

    num_kept: int = 2
    """so many of the last ones"""
    best_by: str | None = None
    """loss of the logged lines that the best is chosen by, lower is better; None: none is kept for its score"""
    every_steps: tuple[int, ...] = ()
    """those of every so many steps are kept for good, by each of these numbers"""

    @classmethod
    def of(cls, config: PretrainConfig) -> CheckpointPolicy:
        """What a run's config asks for. Raises ValueError if the run logs no such loss."""
        train, names = config.train, logged_names(loss_names(config), mode_names(config.masking))
        if train.keep_best is not None and train.keep_best not in names:
            raise ValueError(
                f"train.keep_best: given {train.keep_best!r}, expected none or a loss that this run logs: "
                f"{', '.join(names)}"
            )
        every_steps = tuple(steps for steps in (train.keep_every_steps, config.evaluate.every_steps) if steps)
        return cls(train.num_checkpoints_kept, train.keep_best, every_steps)

    def score_of(self, line: Mapping[str, Any] | None) -> float | None:
        """A checkpoint's score, from the last line logged at or before its step; None where there is none to go by.

        A loss that is not finite, or has no entry because nothing was hidden for it, is no score.
        """
        value = None if line is None or self.best_by is None else line.get(self.best_by)
        return float(value) if value is not None and math.isfinite(value) else None

    def choose(self, entries: Iterable[CheckpointEntry]) -> tuple[CheckpointEntry, ...]:
        """Those of `entries` that are kept, oldest first, each with why; of equal scores the earliest is the best."""
        ordered = sorted(entries, key=lambda entry: entry.step)
        last = ordered[-self.num_kept :]
        scores = {entry.step: entry.score for entry in ordered if entry.score is not None and self.best_by is not None}
        best_step = min(scores, key=lambda step: scores[step], default=None)
        chosen = []
        for entry in ordered:
            kept: list[Reason] = ["last"] if entry in last else []
            kept += ["best"] if entry.step == best_step else []
            kept += ["every"] if any(entry.step % steps == 0 for steps in self.every_steps) else []
            if kept:
                chosen.append(entry.model_copy(update={"kept": tuple(kept)}))
        return tuple(chosen)
