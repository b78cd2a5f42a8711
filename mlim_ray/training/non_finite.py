"""When a loss or a gradient is no number: the batch is kept for a second look, and no weight ever learns from it.

Layout: `non_finite/step-<NNNNNNNN>/{batch-<rank>.npz,weights.safetensors,summary.json}` in the run folder.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.batch import Batch
from mlim_ray.training.distributed import gather_objects, rank, wait_for_all

MAX_NAMED_KEYS = 8
MAX_SKIPPED_IN_A_ROW = 10
"""of steps that are skipped; more are no bad records but a run that diverged (our choice)"""
MAX_CAPTURED = 3
"""batches kept of one start of a run; each takes a copy of the weights"""
FOLDER = "non_finite"
# A run keeps its learning rate and precision for as long as it lives.
_ANEW = "start anew with a lower --train.learning-rate or --train.precision float32, --init-from this run if you like"


class NonFiniteError(ValueError):
    """A loss, a gradient or a weight is NaN or infinite."""


@dataclass(frozen=True)
class Finding:
    """What one worker saw of a step whose gradient is no number."""

    rank: int
    num_records: int
    keys: list[str]
    """hashes, 16 hex digits, of its records whose own loss is no number"""

    @classmethod
    def of(cls, batch: Batch, loss_B: Tensor) -> "Finding":
        """Of a worker's records and their losses before any mean."""
        bad = ~torch.isfinite(loss_B).cpu().numpy()
        return cls(rank(), len(loss_B), [f"{key:016x}" for key in batch.key_hash_B[bad].tolist()])


class NonFiniteGuard:
    """Decides over steps whose gradient is no number, equally on all workers; they all see the same gradient."""

    def __init__(self, run: str | None, policy: str) -> None:
        self._run = run
        self._policy = policy
        self.num_skipped = 0
        self._in_a_row = 0
        self._num_captured = 0

    def accept(self) -> None:
        """A step was well."""
        self._in_a_row = 0

    def refuse(
        self, step: int, batch: Batch, loss_B: Tensor, norm: float, weights: dict[str, Tensor], settings: dict[str, Any]
    ) -> None:
        """A step was not: keep its batch, and return if the step is skipped, raise NonFiniteError if the run stops."""
        findings: list[Finding] = gather_objects(Finding.of(batch, loss_B))
        place = self._capture(step, batch, findings, weights, settings)
        self.num_skipped += 1
        self._in_a_row += 1
        problem = f"the gradient of step {step} is {norm}: {describe(findings)}"
        if place is not None:
            problem += f"; kept in {place}, look with mlim-ray replay {place}"
        if self._policy == "stop":
            raise NonFiniteError(
                f"{problem}; go on without such steps with --resume --train.on-non-finite skip, or mend the records; "
                f"where the run diverged, {_ANEW}"
            )
        if self._in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"{self._in_a_row} steps in a row gave no finite gradient, so it is not the records: {problem}; {_ANEW}"
            )

    def _capture(
        self, step: int, batch: Batch, findings: list[Finding], weights: dict[str, Tensor], settings: dict[str, Any]
    ) -> str | None:
        if self._run is None or self._num_captured >= MAX_CAPTURED:
            return None
        self._num_captured += 1
        place = storage.join(self._run, FOLDER, f"step-{step:08d}")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **batch._asdict())
        storage.write_bytes_atomically(storage.join(place, f"batch-{rank():03d}.npz"), buffer.getvalue())
        if rank() == 0:
            content = safetensors.torch.save({name: weight.contiguous().cpu() for name, weight in weights.items()})
            storage.write_bytes_atomically(storage.join(place, "weights.safetensors"), content)
            summary = {"step": step, "settings": settings, "workers": [vars(finding) for finding in findings]}
            storage.write_bytes_atomically(storage.join(place, "summary.json"), json.dumps(summary, indent=1).encode())
        # The first error ends all workers, in the middle of writing too.
        wait_for_all()
        return place


def describe(findings: list[Finding]) -> str:
    """Which workers' records are to blame, in words."""
    blamed = [finding for finding in findings if finding.keys]
    if not blamed:
        return "every record's own loss is finite, so it overflowed on the way back"
    return "; ".join(
        f"on worker {each.rank} the loss of {len(each.keys)} of {each.num_records} records "
        f"({', '.join(each.keys[:MAX_NAMED_KEYS])}{', ...' if len(each.keys) > MAX_NAMED_KEYS else ''})"
        for each in blamed
    )


def require_finite(step: int, weights: dict[str, Tensor]) -> None:
    """Raise NonFiniteError if a weight is NaN or infinite: such a checkpoint must never exist."""
    bad = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
    if bad:
        raise NonFiniteError(
            f"after step {step} the weights {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''} are not finite, so "
            f"no checkpoint was written and the one before is intact; {_ANEW}"
        )
