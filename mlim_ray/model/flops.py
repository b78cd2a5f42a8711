"""Floating point operations of a training step, from what is in its batch (multiplying and adding are two).

Legend: B records, N cells, V visible cells, U present tokens, M hidden ones, P = B * N + U rows, R = B * N + M rows
with targets, S_b positions of record b, D width, W vocabulary, C_l channels after l of k levels.

Matrix products alone, and nothing for padding or for what the model leaves out:

    embedder   see `embedder_flops.py`
    encoder    see `encoder_flops.py`
    MLM head   2 * M * (D^2 + D * W)
    decoder    2 * B * N * sum over l of 4^l * C'_l * (4 * C'_(l+1))                   C'_0 = D, C'_k = 3

The backward pass counts as twice the forward pass, but for what the embedder does on pixels, which need no gradient.
What activation checkpointing computes again is not counted: utilisation is that of the model, not of the device.
"""

from itertools import pairwise
from typing import NamedTuple

from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.embedder_flops import embedder_flops
from mlim_ray.model.encoder_flops import Seen, encoder_flops


class Contents(NamedTuple):
    """What a batch, or many, hold. Operations are linear in each, so contents may be added up first."""

    num_cells: float
    num_visible_cells: float
    num_tokens: float
    """present ones"""
    num_hidden_tokens: float
    num_pairs: float
    """squares of the records' numbers of positions, cells included"""
    num_visible_pairs: float = 0.0
    """squares of their numbers of positions without hidden cells; only removal asks for it"""


def step_flops(shape: MlimConfig, contents: Contents) -> float:
    """Operations of the forward and backward pass over `contents`, by the formula above."""
    width = shape.hidden_size
    splitting = [
        2 * contents.num_cells * 4**level * num_in * 4 * num_out
        for level, (num_in, num_out) in enumerate(pairwise((width, *shape.decoder_channels, 3)))
    ]
    encoder = encoder_flops(
        shape,
        Seen(contents.num_cells + contents.num_tokens, contents.num_pairs),
        Seen(contents.num_visible_cells + contents.num_tokens, contents.num_visible_pairs),
        contents.num_cells + contents.num_hidden_tokens,
    )
    mlm_head = 2 * contents.num_hidden_tokens * (width**2 + width * shape.vocab_size)
    embedder = embedder_flops(shape, contents.num_cells, contents.num_visible_cells)
    forward = embedder.total + encoder + mlm_head + sum(splitting)
    return 3 * forward - embedder.first
