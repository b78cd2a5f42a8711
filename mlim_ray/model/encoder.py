"""BERT's encoder on one sequence of cells and words.

Legend: B records, S sequence positions, P present positions of the whole batch, D width, H heads, K width of a head.

Titles differ in length, and a padded position costs as much as a real one. So everything but attention works on the
present positions alone, [P, D]; only attention sees the padded [B, S] layout.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Layout(NamedTuple):
    """Where the present positions lie in the padded layout."""

    num_records: int
    place_P: Tensor
    """index of each present position in the flattened [B * S]"""
    attend_B11S: Tensor
    """True at present positions"""

    @staticmethod
    def of(present_BS: Tensor) -> "Layout":
        """The layout of a batch; `present_BS` is False at padding."""
        return Layout(len(present_BS), present_BS.flatten().nonzero()[:, 0], present_BS[:, None, None, :])

    def pack(self, x_BSD: Tensor) -> Tensor:
        """The present positions [P, D]."""
        return x_BSD.flatten(0, 1).index_select(0, self.place_P)

    def unpack(self, x_PD: Tensor) -> Tensor:
        """The padded layout [B, S, D], zeros at padding."""
        num_positions = self.num_records * self.attend_B11S.shape[-1]
        padded = x_PD.new_zeros(num_positions, x_PD.shape[1]).index_copy(0, self.place_P, x_PD)
        return padded.unflatten(0, (self.num_records, -1))


class SelfAttention(nn.Module):
    """Multi-head self-attention; positions that are not present change nothing."""

    def __init__(self, width: int, num_heads: int, dropout_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_ratio = dropout_ratio
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """Attend from every present position to those of its record."""
        qkv_BSD = layout.unpack(self.query_key_value(x_PD))
        qkv_3BHSK = qkv_BSD.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query_BHSK, key_BHSK, value_BHSK = qkv_3BHSK.unbind()
        mixed_BHSK = F.scaled_dot_product_attention(
            query_BHSK,
            key_BHSK,
            value_BHSK,
            attn_mask=layout.attend_B11S,
            dropout_p=self.dropout_ratio if self.training else 0.0,
        )
        out: Tensor = self.output(layout.pack(mixed_BHSK.transpose(1, 2).flatten(2)))
        return out


class EncoderLayer(nn.Module):
    """Attention and a GELU feed-forward of four times the width, normalised before (pre) or after (BERT)."""

    def __init__(self, width: int, num_heads: int, *, pre_norm: bool, dropout_ratio: float, eps: float) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = SelfAttention(width, num_heads, dropout_ratio)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.feed_forward_norm = nn.LayerNorm(width, eps)
        self.dropout = nn.Dropout(dropout_ratio)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """One layer."""
        if self.pre_norm:
            x_PD = x_PD + self.dropout(self.attention(self.attention_norm(x_PD), layout))
            return x_PD + self.dropout(self.feed_forward(self.feed_forward_norm(x_PD)))
        x_PD = self.attention_norm(x_PD + self.dropout(self.attention(x_PD, layout)))
        out: Tensor = self.feed_forward_norm(x_PD + self.dropout(self.feed_forward(x_PD)))
        return out


class Encoder(nn.Module):
    """A stack of layers; with pre-norm a last norm closes it."""

    def __init__(
        self, width: int, num_layers: int, num_heads: int, *, pre_norm: bool, dropout_ratio: float, eps: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(width, num_heads, pre_norm=pre_norm, dropout_ratio=dropout_ratio, eps=eps)
            for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(width, eps) if pre_norm else nn.Identity()

    def forward(self, x_BSD: Tensor, present_BS: Tensor) -> Tensor:
        """States of every position, zeros at padding; `present_BS` is False there."""
        layout = Layout.of(present_BS)
        x_PD = layout.pack(x_BSD)
        for layer in self.layers:
            x_PD = layer(x_PD, layout)
        return layout.unpack(self.final_norm(x_PD))
