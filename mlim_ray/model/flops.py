"""Floating point operations of a training step, from what is in its batch (multiplying and adding are two).

Legend: B records, N cells, V visible cells, U present tokens, M hidden ones, P = B * N + U rows, R = B * N + M rows
with targets, S_b positions of record b, D width, L layers, W vocabulary, C_l channels after l of k levels.

Matrix products alone, and nothing for padding or for what the model leaves out:

    embedder   2 * V * sum over l of 4^(k-l) * (4 * C_(l-1)) * C_l                     C_0 = 3, C_k = D
    encoder    24 * P * D^2 for each layer but the last, 6 * P * D^2 + 18 * R * D^2 for that
    attention  4 * D * L * sum over b of S_b^2
    MLM head   2 * M * (D^2 + D * W)
    decoder    2 * B * N * sum over l of 4^l * C'_l * (4 * C'_(l+1))                   C'_0 = D, C'_k = 3

The backward pass counts as twice the forward pass, but for the embedder's first level, whose input needs no gradient.
What activation checkpointing computes again is not counted: utilisation is that of the model, not of the device.
"""

from itertools import pairwise
from typing import NamedTuple

from mlim_ray.model.configuration import MlimConfig


class Contents(NamedTuple):
    """What a batch, or many, hold. Operations are linear in each, so contents may be added up first."""

    num_records: float
    num_visible_cells: float
    num_tokens: float
    """present ones"""
    num_hidden_tokens: float
    num_pairs: float
    """squares of the records' numbers of positions, cells included"""


def step_flops(shape: MlimConfig, contents: Contents) -> float:
    """Operations of the forward and backward pass over `contents`, by the formula above."""
    width = shape.hidden_size
    num_cells = contents.num_records * shape.num_cells
    num_rows, num_targets = num_cells + contents.num_tokens, num_cells + contents.num_hidden_tokens
    levels = list(pairwise((3, *shape.embedder_channels)))
    merging = [
        2 * contents.num_visible_cells * 4 ** (len(levels) - 1 - level) * 4 * num_in * num_out
        for level, (num_in, num_out) in enumerate(levels)
    ]
    splitting = [
        2 * num_cells * 4**level * num_in * 4 * num_out
        for level, (num_in, num_out) in enumerate(pairwise((width, *shape.decoder_channels, 3)))
    ]
    encoder = ((24 * shape.num_hidden_layers - 18) * num_rows + 18 * num_targets) * width**2
    attention = 4 * width * shape.num_hidden_layers * contents.num_pairs
    mlm_head = 2 * contents.num_hidden_tokens * (width**2 + width * shape.vocab_size)
    forward = sum(merging) + encoder + attention + mlm_head + sum(splitting)
    return 3 * forward - merging[0]
