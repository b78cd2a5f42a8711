"""Removal of hidden cells (after MAE): the first layers see what is visible, and nothing is computed for the rest.

Legend: B records, S positions of a record, P rows, R the first of them, K kept rows, D width.

MAE puts a small decoder of its own behind the encoder: mask embeddings with positions join the visible states there.
Here the encoder's last layers are that decoder, in their full width, so that a model has the same weights with and
without removal, a BERT checkpoint fits as ever, and texts can fill in a picture that is hidden whole (our choice; the
medical M3AE's decoder has 384 of 768 and 5 layers, FastMIM's 256 and one). What joins is what every layer sees without
removal: [MASK] with the cell's position. Hidden words stay in place as [MASK], as in the medical M3AE; Geng's M3AE
removes them too.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mlim_ray.model.encoder import Encoder, EncoderLayer
from mlim_ray.model.layout import Layout


class RemovingEncoder(Encoder):
    """An encoder only whose last `num_joint_layers` layers see the hidden cells."""

    def __init__(self, layers: Iterable[EncoderLayer], final_norm: nn.Module, num_joint_layers: int) -> None:
        super().__init__(layers, final_norm)
        self.num_joint_layers = num_joint_layers

    def forward(self, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        """States of the first rows [R, D]; the last layer computes no other."""
        kept_K, visible = without_hidden_cells(layout)
        x_KD = x_PD.index_select(0, kept_K)
        for layer in self.layers[: -self.num_joint_layers]:
            x_KD = self._run(layer, x_KD, visible, len(x_KD))
        x_PD = x_PD.to(x_KD.dtype).index_copy(0, kept_K, x_KD)
        return self.joint(x_PD, layout, num_rows)

    def joint(self, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        """The last layers alone, which see the hidden cells too."""
        return self._run_all(self.layers[-self.num_joint_layers :], x_PD, layout, num_rows)


def without_hidden_cells(layout: Layout) -> tuple[Tensor, Layout]:
    """The rows [K] of visible cells and of tokens, and a layout of those alone, as narrow as its longest record.

    How long that is, a GPU has to be asked and waited for, once a pass.
    """
    num_records = len(layout.row_BS)
    device = layout.place_P.device
    kept_K = torch.cat([layout.visible_cell_V, torch.arange(layout.num_cells, len(layout.place_P), device=device)])
    kept_BS = torch.zeros(layout.row_BS.numel(), dtype=torch.bool, device=device)
    kept_BS = kept_BS.index_fill_(0, layout.place_P[kept_K], True).view_as(layout.row_BS)
    num_kept_B1 = kept_BS.sum(1, keepdim=True)
    width = max(1, int(num_kept_B1.max()))
    place_BS = width * torch.arange(num_records, device=device)[:, None] + kept_BS.cumsum(1) - 1
    place_K = place_BS.flatten()[layout.place_P[kept_K]]
    present_BS = torch.arange(width, device=device) < num_kept_B1
    row_BS = torch.zeros(num_records * width, dtype=torch.long, device=device)
    row_BS[place_K] = torch.arange(len(kept_K), device=device)
    row_BS = row_BS.view(num_records, width)
    return kept_K, Layout(
        visible_cell_V=torch.arange(len(layout.visible_cell_V), device=device),
        token_U=layout.token_U,
        hidden_token_M=layout.hidden_token_M,
        place_P=place_K,
        row_BS=torch.where(present_BS, row_BS, row_BS[:, :1]),
        padding_Q=(~present_BS).flatten().nonzero()[:, 0],
        attend_B11S=present_BS[:, None, None, :],
    )
