"""What a step of a run takes, counted and not timed: operations, memory and parameters, of all its objectives."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mlim_ray.objectives import Losses
from mlim_ray.training.batch import Batch
from mlim_ray.training.peers import meet
from mlim_ray.training.tensors import to_tensors


@dataclass(frozen=True)
class StepCosts:
    """Of one worker without a step of the optimiser."""

    num_parameters: int
    """that are trained, heads of objectives included"""
    flops_per_record: float
    """floating point operations of products forwards and back; multiplying and adding are two"""
    num_bytes: int
    """weights, gradients, Adam's two moments, copies that are not trained, and what the way back needs of the way
    forwards"""


def step_costs(losses: Losses, batch: Batch, seed: int) -> StepCosts:
    """Counted on one batch; the losses are left without gradients."""
    inputs = to_tensors(batch, losses.model.device)
    num_records = len(batch.key_hash_B)
    meeting = meet(batch, seed, losses.model.device, in_parts=True) if losses.needs_peers else None
    peers = None if meeting is None else meeting.peers(0, num_records)
    # Fused attention is not counted on CPUs.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        sum(terms.sum_B.sum() for terms in losses(inputs, peers)).backward()
    losses.zero_grad(set_to_none=True)
    parameters = list(losses.parameters())
    of_weights = {weight.untyped_storage().data_ptr() for weight in parameters}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(tensor: Any) -> Any:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        terms = losses(inputs, peers)
    del terms
    trained = sum(weight.nbytes for weight in parameters if weight.requires_grad)
    others = sum(weight.nbytes for weight in parameters if not weight.requires_grad)
    return StepCosts(
        sum(weight.numel() for weight in parameters if weight.requires_grad),
        counter.get_total_flops() / max(1, num_records),
        4 * trained + others + sum(kept.values()),
    )
