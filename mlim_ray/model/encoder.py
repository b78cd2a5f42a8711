"""BERT's encoder on cells and words.

Legend: B records, S positions of a record, P rows, one for each present position of the whole batch,
R the first of them, D width, H heads, K width of a head.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mlim_ray.model.layout import Layout


class SelfAttention(nn.Module):
    """Multi-head self-attention; positions that are not present change nothing."""

    def __init__(self, width: int, num_heads: int, dropout_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_ratio = dropout_ratio
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        """Attend to the present positions of a record, from those of the first rows [R, D]."""
        query_BHSK, key_BHSK, value_BHSK = self.projections(x_PD, layout)
        mixed_BHSK = F.scaled_dot_product_attention(
            query_BHSK,
            key_BHSK,
            value_BHSK,
            attn_mask=layout.attend_B11S,
            dropout_p=self.dropout_ratio if self.training else 0.0,
        )
        out: Tensor = self.output(layout.pack(mixed_BHSK.transpose(1, 2).flatten(2), num_rows))
        return out

    def projections(self, x_PD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, S, K]."""
        qkv_BSD = layout.unpack(self.query_key_value(x_PD))
        query_BHSK, key_BHSK, value_BHSK = (
            part_BSD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part_BSD in qkv_BSD.chunk(3, dim=-1)
        )
        return query_BHSK, key_BHSK, value_BHSK

    def weights(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """How much each position takes from each, [B, H, S, S]; `forward`'s fused kernel keeps that to itself.

        Rows at padding mean nothing.
        """
        query_BHSK, key_BHSK, _ = self.projections(x_PD, layout)
        scores_BHSS = query_BHSK @ key_BHSK.transpose(2, 3) / query_BHSK.shape[-1] ** 0.5
        return scores_BHSS.masked_fill(~layout.attend_B11S, -torch.inf).softmax(-1)


class FeedForward(nn.Sequential):
    """Two layers with a GELU between, of four times the width; the same for every row."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_RD: Tensor, layout: Layout | None = None) -> Tensor:
        """The first rows [R, D]; it need not know where they lie."""
        out: Tensor = super().forward(x_RD)
        return out


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, normalised before (pre) or after (BERT)."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        pre_norm: bool,
        dropout_ratio: float,
        eps: float,
        feed_forward: Callable[[int], nn.Module] = FeedForward,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = SelfAttention(width, num_heads, dropout_ratio)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.feed_forward = feed_forward(width)
        self.feed_forward_norm = nn.LayerNorm(width, eps)
        self.dropout = nn.Dropout(dropout_ratio)

    def forward(self, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        """One layer, of the first rows only [R, D]."""
        x_RD = x_PD[:num_rows]
        if self.pre_norm:
            x_RD = x_RD + self.dropout(self.attention(self.attention_norm(x_PD), layout, num_rows))
            return x_RD + self.dropout(self.feed_forward(self.feed_forward_norm(x_RD), layout))
        x_RD = self.attention_norm(x_RD + self.dropout(self.attention(x_PD, layout, num_rows)))
        out: Tensor = self.feed_forward_norm(x_RD + self.dropout(self.feed_forward(x_RD, layout)))
        return out


class Encoder(nn.Module):
    """A stack of layers; with pre-norm a last norm closes it.

    With `activation_checkpointing`, only what enters a layer is kept for the backward pass; it computes the rest anew.
    """

    def __init__(self, layers: Iterable[EncoderLayer], final_norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.final_norm = final_norm
        self.activation_checkpointing = False

    def forward(self, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        """States of the first rows [R, D]; the last layer computes no other."""
        return self._run_all(self.layers, x_PD, layout, num_rows)

    def _run_all(self, layers: nn.ModuleList, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        for layer in layers[:-1]:
            x_PD = self._run(layer, x_PD, layout, len(x_PD))
        out: Tensor = self.final_norm(self._run(layers[-1], x_PD, layout, num_rows))
        return out

    def _run(self, layer: nn.Module, x_PD: Tensor, layout: Layout, num_rows: int) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(layer, x_PD, layout, num_rows, use_reentrant=False)
        else:
            out = layer(x_PD, layout, num_rows)
        return out
