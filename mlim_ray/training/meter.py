"""Losses since the last logged line, for all workers and by masking mode.

Legend: B records, Q masking modes.
"""

import torch
from torch import Tensor

from mlim_ray.objectives import LossTerms
from mlim_ray.training.distributed import rank, sum_over_workers


def loss_names(mode_names: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a logged line that are losses; those of a mode are absent where it had no targets."""
    by_mode = (f"loss/{side}/{mode}" for side in ("mlm", "recon") for mode in mode_names)
    return ("loss/total", "loss/mlm", "loss/recon", *by_mode)


class LossMeter:
    """Sums and counts of both losses for each mode: `table` is [4, Q] (MLM sum, count, RECON sum, count)."""

    def __init__(self, mode_names: tuple[str, ...], device: torch.device) -> None:
        self.mode_names = mode_names
        self.table = torch.zeros(4, len(mode_names), dtype=torch.float64, device=device)
        self._step = torch.zeros_like(self.table)

    def add(self, mlm: LossTerms, recon: LossTerms, mode_B: Tensor) -> None:
        """Count records of the present step in."""
        rows_4B = torch.stack([mlm.sum_B, mlm.count_B, recon.sum_B, recon.count_B]).detach().double()
        self._step.index_add_(1, mode_B, rows_4B)

    def commit(self) -> None:
        """The present step was learned from."""
        self.table += self._step
        self._step.zero_()

    def drop(self) -> None:
        """The present step was not: its losses may be no numbers."""
        self._step.zero_()

    def gather(self) -> None:
        """Bring every worker's sums to the first one, so that a checkpoint of it alone holds them all."""
        sum_over_workers(self.table)
        if rank() != 0:
            self.table.zero_()

    def read_and_reset(self, mlm_weight: float, recon_weight: float) -> dict[str, float]:
        """Mean losses since the last call; a mode without targets has no entry."""
        table = sum_over_workers(self.table).cpu()
        mlm, recon = _mean(table[0].sum(), table[1].sum()), _mean(table[2].sum(), table[3].sum())
        losses = {
            "loss/total": mlm_weight * (mlm or 0.0) + recon_weight * (recon or 0.0),
            "loss/mlm": mlm or 0.0,
            "loss/recon": recon or 0.0,
        }
        for index, mode in enumerate(self.mode_names):
            for name, first in (("mlm", 0), ("recon", 2)):
                mean = _mean(table[first, index], table[first + 1, index])
                if mean is not None:
                    losses[f"loss/{name}/{mode}"] = mean
        self.table.zero_()
        return losses


def _mean(total: Tensor, count: Tensor) -> float | None:
    return float(total / count) if count > 0 else None
