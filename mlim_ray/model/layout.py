"""Where the cells and words of a batch lie, so that nothing is computed for what is not there.

Legend: B records, N cells, T token positions, S = N + T positions of a record, D width; of the whole batch: P rows, one
for each present position, V visible cells, U present tokens, M hidden ones, Q padded positions.

Titles differ in length, and a padded position costs as much as a real one. So everything but attention works on rows,
[P, D]: first all cells, then the hidden pieces, then the other tokens. What a loss is taken of are the first rows, and
the last layer computes no other. Only attention sees the padded [B, S, D].
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Layout(NamedTuple):
    """Indices (int64) of one batch. Made on the CPU with the batch, they spare a GPU from being waited for."""

    visible_cell_V: Tensor
    """in the flattened [B * N], the cells that are not hidden"""
    token_U: Tensor
    """in the flattened [B * T], the hidden ones first, both in row-major order"""
    hidden_token_M: Tensor
    """the first of `token_U`"""
    place_P: Tensor
    """of each row, in the flattened [B * S]"""
    row_BS: Tensor
    """the row of each place; at padding the record's first one, so that what is wrong with a record stays in it"""
    padding_Q: Tensor
    """in the flattened [B * S]"""
    attend_B11S: Tensor
    """bool, False at padding"""

    @staticmethod
    def of(token_present_BT: Tensor, cell_hidden_BN: Tensor, token_hidden_BT: Tensor) -> "Layout":
        """The layout of a batch with such masks, on their device."""
        num_cells = cell_hidden_BN.shape[1]
        present_BS = torch.cat([torch.ones_like(cell_hidden_BN), token_present_BT], dim=1)
        place_BS = torch.arange(present_BS.numel(), device=present_BS.device).view(present_BS.shape)
        place_of_cell, place_of_token = place_BS[:, :num_cells].flatten(), place_BS[:, num_cells:].flatten()
        hidden_token_M = _where(token_hidden_BT)
        token_U = torch.cat([hidden_token_M, _where(token_present_BT & ~token_hidden_BT)])
        place_P = torch.cat([place_of_cell, place_of_token[token_U]])
        first_cell_B1 = num_cells * torch.arange(len(present_BS), device=place_BS.device)[:, None]
        row_BS = first_cell_B1.repeat(1, present_BS.shape[1]).flatten()
        row_BS[place_P] = torch.arange(len(place_P), device=place_P.device)
        return Layout(
            visible_cell_V=_where(~cell_hidden_BN),
            token_U=token_U,
            hidden_token_M=hidden_token_M,
            place_P=place_P,
            row_BS=row_BS.view(present_BS.shape),
            padding_Q=_where(~present_BS),
            attend_B11S=present_BS[:, None, None, :],
        )

    @property
    def num_cells(self) -> int:
        """B * N."""
        return len(self.place_P) - len(self.token_U)

    @property
    def num_targets(self) -> int:
        """The first rows, which losses are taken of: all cells and the hidden pieces."""
        return self.num_cells + len(self.hidden_token_M)

    def unpack(self, x_PD: Tensor) -> Tensor:
        """Rows [P, D] -> [B, S, D]; what stands at padding is kept from attention by `attend_B11S`."""
        out: Tensor = _Unpack.apply(x_PD, self.row_BS, self.place_P)
        return out

    def pack(self, x_BSD: Tensor, num_rows: int) -> Tensor:
        """[B, S, D] -> the first rows."""
        out: Tensor = _Pack.apply(x_BSD, self.row_BS, self.place_P, self.padding_Q, num_rows)
        return out


def _where(chosen: Tensor) -> Tensor:
    return chosen.flatten().nonzero()[:, 0]


class _Unpack(torch.autograd.Function):
    """Each row goes to one place and gets its gradient from there; autograd's own for an index adds up, slower."""

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, row_BS: Tensor, place_P: Tensor) -> Tensor:
        ctx.save_for_backward(place_P)
        return x_PD.index_select(0, row_BS.flatten()).view(*row_BS.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSD: Tensor) -> tuple[Tensor, None, None]:
        (place_P,) = ctx.saved_tensors
        return grad_BSD.flatten(0, 1).index_select(0, place_P), None, None


class _Pack(torch.autograd.Function):
    """The reverse of `_Unpack`; what is not taken has no gradient."""

    @staticmethod
    def forward(ctx: Any, x_BSD: Tensor, row_BS: Tensor, place_P: Tensor, padding_Q: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(row_BS, torch.cat([padding_Q, place_P[num_rows:]]))
        return x_BSD.flatten(0, 1).index_select(0, place_P[:num_rows])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, None, None, None, None]:
        row_BS, not_taken = ctx.saved_tensors
        row = row_BS.flatten().clamp(max=len(grad_RD) - 1)
        grad_BSD = grad_RD.index_select(0, row).index_fill_(0, not_taken, 0.0)
        return grad_BSD.view(*row_BS.shape, -1), None, None, None, None
