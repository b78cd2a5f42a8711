"""The few things that several workers do together; each is a no-op for one."""

import torch
import torch.distributed
from torch import Tensor


def num_workers() -> int:
    """Workers of this run."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """This worker's number, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def sum_over_workers(values: Tensor) -> Tensor:
    """The sum of every worker's values, in place."""
    if num_workers() > 1:
        torch.distributed.all_reduce(values)
    return values


def wait_for_all() -> None:
    """Return once every worker has come here."""
    if num_workers() > 1:
        torch.distributed.barrier()
