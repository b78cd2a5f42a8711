"""The few things that several workers do together; each is a no-op for one."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

Part = TypeVar("Part")


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


def gather_rows(rows_BD: Tensor, first: int, num_rows: int) -> Tensor:
    """Every worker's rows together [G, D], with gradient: each worker's own lie at `first`."""
    own_GD = nn.functional.pad(rows_BD, (0, 0, first, num_rows - first - len(rows_BD)))
    out: Tensor = own_GD if num_workers() == 1 else _Sum.apply(own_GD)
    return out


def gather_objects(part: Part) -> list[Part]:
    """Every worker's part, in the order of ranks, on each of them."""
    if num_workers() == 1:
        return [part]
    parts: list[Any] = [None] * num_workers()
    torch.distributed.all_gather_object(parts, part)
    return parts


def wait_for_all() -> None:
    """Return once every worker has come here."""
    if num_workers() > 1:
        torch.distributed.barrier()


def time_reductions(model: DistributedDataParallel, add: Callable[[float], None]) -> None:
    """Hand `add` the seconds from the start to the end of each exchange of gradients on the CPU.

    Exchanges overlap with the rest of the backward pass, so this is an upper end of what a step waits for them. On a
    GPU they run beside the program, whose clock cannot see them: there only the wait for the counts is counted.
    """

    def timed(group: Any, bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        started = time.perf_counter()
        future = default_hooks.allreduce_hook(group, bucket)
        if bucket.buffer().device.type != "cpu":
            return future

        def done(future: torch.futures.Future[Tensor]) -> Tensor:
            add(time.perf_counter() - started)
            value: Tensor = future.value()
            return value

        return future.then(done)

    model.register_comm_hook(None, timed)


class _Sum(torch.autograd.Function):
    """The sum over workers, which each of them takes a loss of; so is the gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return sum_over_workers(own.contiguous().clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return sum_over_workers(grad.contiguous().clone())
