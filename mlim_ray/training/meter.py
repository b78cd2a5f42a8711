"""Losses since the last logged line, for all workers and by masking mode.

Legend: B records, L losses, R = 2 * L rows, Q masking modes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlim_ray.objectives import LossTerms
from mlim_ray.training.distributed import rank, sum_over_workers


class LossMeter:
    """Sums and counts of each loss for each mode: `table` is [2 * L, Q], the sum and the count of each loss in turn.

    Args:
        names: of the losses; a logged line has `loss/<name>`, and `loss/<name>/<mode>` where the mode had targets.
        mode_names: of the masking policy.
        device: where the losses are.
    """

    def __init__(self, names: tuple[str, ...], mode_names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        self.mode_names = mode_names
        self.table = torch.zeros(2 * len(names), len(mode_names), dtype=torch.float64, device=device)
        self._step = torch.zeros_like(self.table)

    def add(self, terms: Sequence[LossTerms], mode_B: Tensor) -> None:
        """Count records of the present step in; `terms` in the order of the names."""
        rows_RB = torch.stack([part for each in terms for part in each]).detach().double()
        self._step.index_add_(1, mode_B, rows_RB)

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

    def read_and_reset(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Mean losses since the last call, and their weighted sum; a mode without targets has no entry."""
        table = sum_over_workers(self.table).cpu()
        means = {name: _mean(table[2 * row].sum(), table[2 * row + 1].sum()) for row, name in enumerate(self.names)}
        losses = {"loss/total": sum(weights[name] * (mean or 0.0) for name, mean in means.items())}
        losses |= {f"loss/{name}": mean or 0.0 for name, mean in means.items()}
        for index, mode in enumerate(self.mode_names):
            for row, name in enumerate(self.names):
                mean = _mean(table[2 * row, index], table[2 * row + 1, index])
                if mean is not None:
                    losses[f"loss/{name}/{mode}"] = mean
        self.table.zero_()
        return losses


def logged_names(names: tuple[str, ...], mode_names: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a logged line that are losses; those of a mode are absent where it had no targets."""
    by_mode = (f"loss/{name}/{mode}" for name in names for mode in mode_names)
    return ("loss/total", *(f"loss/{name}" for name in names), *by_mode)


def _mean(total: Tensor, count: Tensor) -> float | None:
    return float(total / count) if count > 0 else None
