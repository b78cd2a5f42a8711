"""The encoder with a row for every place of a padded batch, for formats in which no size may depend on values.

Legend: B records, N cells, T token positions, S = N + T positions of a record, P = B * S rows, D width, H, W pixels,
E experts, K those used; of a picture E = 3 * H * W values.

Training computes nothing for padding, for hidden cells or for experts that are not used, so how much it computes
depends on the masks. Here everything is computed, and what does not count is replaced afterwards: the same weights, the
same outputs, more work.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlim_ray.model.blocks import Grid
from mlim_ray.model.embedders import DeepCnn
from mlim_ray.model.encoder import Encoder
from mlim_ray.model.encoders import Mixture, RemovingEncoder
from mlim_ray.model.layout import Layout
from mlim_ray.model.mlim import MlimModel
from mlim_ray.model.pooling import pooled_states

_BLANK = 0.5
"""level of a hidden cell's pixels for embedders that blank them: what they see as zero"""


class PaddedStates(NamedTuple):
    """What `PaddedEncoder` gives, by transformers' names."""

    last_hidden_state: Tensor
    """[B, N + T, D]: the cells in row-major order, then the tokens, zeros at padding"""
    pooler_output: Tensor
    """[B, D], one state for each record, of what is shown of it"""


class PaddedEncoder(nn.Module):
    """A copy of a model's embedders and encoder, in evaluation mode.

    Its outputs are those of `MlimPreTrainedModel`, but for the last bits: sums have another order.
    """

    def __init__(self, model: MlimModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        embedder = self.model.image_embedder
        if not isinstance(embedder, DeepCnn):
            embedder.grid = _KnownCells(Grid(model.config.cell_size), model.config.image_size)
        for layer in self.model.encoder.layers:
            if isinstance(layer.feed_forward, Mixture):
                layer.feed_forward = _EveryExpert(layer.feed_forward, model.config.num_cells)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, bool_masked_pos: Tensor
    ) -> PaddedStates:
        """Encode a batch.

        Args:
            pixel_values: float32 [B, 3, H, W] in [0, 1].
            input_ids: int64 [B, T]; a hidden piece is [MASK], and at padding stands any piece.
            attention_mask: int64 [B, T], 0 at padding.
            bool_masked_pos: bool [B, N], the hidden cells in row-major order.
        """
        model = self.model
        mask_id, num_cells = model.config.mask_token_id, model.config.num_cells
        present_BT = attention_mask != 0
        cells_BND = self._embed_cells(pixel_values, bool_masked_pos)
        tokens_BTD = model.word_embeddings(input_ids) + model.token_positions[: input_ids.shape[1]]
        embedded_PD = torch.cat([cells_BND, tokens_BTD], 1).flatten(0, 1)
        layout = _every_place(present_BT, bool_masked_pos)
        states_PD = _encode(model.encoder, model.embedding_norm(embedded_PD), layout, bool_masked_pos)
        cells_BND, tokens_BTD = layout.unpack(states_PD).split([num_cells, input_ids.shape[1]], 1)
        tokens_BTD = tokens_BTD.masked_fill(~present_BT[..., None], 0.0)
        hidden_BT = present_BT & (input_ids == mask_id)
        pooled_BD = pooled_states(cells_BND, tokens_BTD, present_BT, bool_masked_pos, hidden_BT)
        return PaddedStates(torch.cat([cells_BND, tokens_BTD], 1), pooled_BD)

    def _embed_cells(self, pixels_B3HW: Tensor, hidden_BN: Tensor) -> Tensor:
        """[B, N, D], [MASK] in the place of hidden cells, positions added."""
        model = self.model
        if model.config.embedder_blanks_hidden:
            side = round(model.config.num_cells**0.5)
            hidden_B1hw = hidden_BN.view(len(hidden_BN), 1, side, side)
            size = model.config.cell_size
            covered = hidden_B1hw.repeat_interleave(size, 2).repeat_interleave(size, 3)
            pixels_B3HW = torch.where(covered, _BLANK, pixels_B3HW)
        every_cell = torch.arange(hidden_BN.numel(), device=hidden_BN.device)
        visible_BND = model.image_embedder(pixels_B3HW, every_cell).view(*hidden_BN.shape, -1)
        mask_D = model.word_embeddings.weight[model.config.mask_token_id]
        return torch.where(hidden_BN[..., None], mask_D, visible_BND) + model.cell_positions


class _KnownCells(nn.Module):
    """A grid that holds where each pixel goes, in place of how that is computed."""

    source_E: Tensor

    def __init__(self, grid: Grid, image_size: int) -> None:
        super().__init__()
        numbers_1NX3 = grid.cells_of(torch.arange(3 * image_size**2).view(1, 3, image_size, image_size))
        self.shape = numbers_1NX3.shape[1:]
        self.register_buffer("source_E", numbers_1NX3.flatten(), persistent=False)

    def cells_of(self, pixels_B3HW: Tensor) -> Tensor:
        """As `Grid.cells_of`."""
        return pixels_B3HW.flatten(1).index_select(1, self.source_E).view(len(pixels_B3HW), *self.shape)


class _EveryPlace(Layout):
    """A layout with a row for each place, in the order of the batch; padding is only kept from attention."""

    def unpack(self, x_PD: Tensor) -> Tensor:
        num_records, _, _, num_positions = self.attend_B11S.shape
        return x_PD.view(num_records, num_positions, x_PD.shape[1])

    def pack(self, x_BSD: Tensor, num_rows: int) -> Tensor:
        return x_BSD.flatten(0, 1)


def _every_place(present_BT: Tensor, hidden_BN: Tensor) -> _EveryPlace:
    present_BS = torch.cat([torch.ones_like(hidden_BN), present_BT], 1)
    nothing = present_BS.new_zeros(0, dtype=torch.long)
    return _EveryPlace(nothing, nothing, nothing, nothing, nothing, nothing, attend_B11S=present_BS[:, None, None, :])


class _EveryExpert(nn.Module):
    """A mixture of experts in which each sees all rows; those that are not used weigh nothing."""

    def __init__(self, mixture: Mixture, num_cells: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.num_cells = num_cells

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        x_BSD = layout.unpack(x_PD)
        modality_BS = (
            (torch.arange(x_BSD.shape[1], device=x_PD.device) >= self.num_cells).long().expand_as(x_BSD[..., 0])
        )
        _, weight_PK, expert_PK = self.mixture.routed(x_PD, modality_BS.flatten())
        weight_PE = torch.zeros_like(x_PD[:, : len(self.mixture.experts)]).scatter(1, expert_PK, weight_PK)
        out_PD = torch.zeros_like(x_PD)
        for number, expert in enumerate(self.mixture.experts):
            out_PD = out_PD + weight_PE[:, number, None] * expert(x_PD)
        return out_PD


def _encode(encoder: Encoder, x_PD: Tensor, layout: Layout, hidden_BN: Tensor) -> Tensor:
    """States of all rows [P, D]."""
    if not isinstance(encoder, RemovingEncoder):
        states_PD: Tensor = encoder(x_PD, layout, len(x_PD))
        return states_PD
    removed_BS = F.pad(hidden_BN, (0, layout.attend_B11S.shape[3] - hidden_BN.shape[1]))
    visible = layout._replace(attend_B11S=layout.attend_B11S & ~removed_BS[:, None, None, :])
    first_PD = x_PD
    for layer in encoder.layers[: -encoder.num_joint_layers]:
        first_PD = layer(first_PD, visible, len(first_PD))
    return encoder.joint(torch.where(removed_BS.flatten()[:, None], x_PD, first_PD), layout, len(x_PD))
