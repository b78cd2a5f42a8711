"""BERT's encoder on one sequence of cells and words.

Legend: B records, S sequence positions, D width, H heads, K width of a head.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention; positions that are not attended to change nothing."""

    def __init__(self, width: int, num_heads: int, dropout_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_ratio = dropout_ratio
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_BSD: Tensor, attend_B11S: Tensor) -> Tensor:
        """Attend from every position to those where `attend_B11S` is True."""
        qkv_3BHSK = self.query_key_value(x_BSD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query_BHSK, key_BHSK, value_BHSK = qkv_3BHSK.unbind()
        mixed_BHSK = F.scaled_dot_product_attention(
            query_BHSK,
            key_BHSK,
            value_BHSK,
            attn_mask=attend_B11S,
            dropout_p=self.dropout_ratio if self.training else 0.0,
        )
        out: Tensor = self.output(mixed_BHSK.transpose(1, 2).flatten(2))
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

    def forward(self, x_BSD: Tensor, attend_B11S: Tensor) -> Tensor:
        """One layer."""
        if self.pre_norm:
            x_BSD = x_BSD + self.dropout(self.attention(self.attention_norm(x_BSD), attend_B11S))
            return x_BSD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BSD)))
        x_BSD = self.attention_norm(x_BSD + self.dropout(self.attention(x_BSD, attend_B11S)))
        out: Tensor = self.feed_forward_norm(x_BSD + self.dropout(self.feed_forward(x_BSD)))
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
        """States of every position; `present_BS` is False at padding."""
        attend_B11S = present_BS[:, None, None, :]
        for layer in self.layers:
            x_BSD = layer(x_BSD, attend_B11S)
        out: Tensor = self.final_norm(x_BSD)
        return out
