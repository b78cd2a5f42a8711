"""Floating point operations of the encoders' forward pass (see `flops.py`, whose legend this is).

    products       6 * I * D^2 + 2 * O * D^2     queries, keys and values of I rows, and what O rows make of them
    attention      4 * D * sum over b of S_b^2
    feed-forward   16 * O * D^2
    mixture        4 * O * D * F * K + 2 * O * D * E     E experts of hidden width F, of which each row goes through K

In all layers I = O = P, but the last gives R rows only. Where hidden cells are removed, I = O = V + U in the first
layers, and S_b counts no hidden cell.
"""

from typing import NamedTuple

from mlim_ray.model.configuration import MlimConfig


class Seen(NamedTuple):
    """What a layer works on."""

    num_rows: float
    num_pairs: float
    """squares of the records' numbers of positions"""


def encoder_flops(shape: MlimConfig, whole: Seen, visible: Seen, num_targets: float) -> float:
    """Operations of all layers: on `whole`, or on what is `visible` in layers that hidden cells are removed from."""
    num_layers = shape.num_hidden_layers
    num_removing = 0 if shape.num_joint_layers is None else num_layers - shape.num_joint_layers
    flops = 0.0
    for number in range(num_layers):
        seen = visible if number < num_removing else whole
        is_mixture = number >= num_layers - shape.num_mixture_layers
        num_out = num_targets if number == num_layers - 1 else seen.num_rows
        flops += _layer(shape, seen, num_out, is_mixture=is_mixture)
    return flops


def _layer(shape: MlimConfig, seen: Seen, num_out: float, *, is_mixture: bool) -> float:
    width = shape.hidden_size
    feed_forward = 16 * num_out * width**2
    if is_mixture:
        experts = 4 * num_out * width * shape.expert_width * shape.num_experts_used
        feed_forward = experts + 2 * num_out * width * shape.num_experts
    return (6 * seen.num_rows + 2 * num_out) * width**2 + 4 * width * seen.num_pairs + feed_forward
