"""Ways of making a training step that `benchmarks/train_step.py` compares: ours, ours without one gain, and ViLT."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.in_memory import Workload
from benchmarks.vilt import ViltStep
from mlim_ray.model import MlimModel
from mlim_ray.model.blocks import MergeBlocks, SplitBlocks
from mlim_ray.model.embedders import ShallowCnn
from mlim_ray.model.layout import Layout
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Batch
from mlim_ray.training.tensors import to_tensors

CPU = torch.device("cpu")
Loss = Callable[[BatchTensors], Tensor]


@dataclass(frozen=True)
class Way:
    """A step, and what makes its inputs, which is not timed."""

    model: nn.Module
    prepare: Callable[[Batch], BatchTensors]
    step: Callable[[BatchTensors], None]


def make_way(name: str, work: Workload) -> Way:
    """One of `WAYS`, with its own model and optimiser."""
    return WAYS[name](work)


def _ours(work: Workload) -> Way:
    return _learning(work, work.model(), _plain_inputs)


def _with_padding(work: Workload) -> Way:
    return _learning(work, work.model(), lambda batch: _padded(_plain_inputs(batch)))


def _embedding_hidden_cells(work: Workload) -> Way:
    return _learning(work, work.model(), lambda batch: _all_cells(_plain_inputs(batch)))


def _all_rows_to_the_end(work: Workload) -> Way:
    model = work.model()
    return _learning(work, model, _plain_inputs, _loss_everywhere(model, work))


def _convolutions(work: Workload) -> Way:
    return _learning(work, _with_convolutions(work.model()), _plain_inputs)


def _plain_rows(work: Workload) -> Way:
    return _learning(work, work.model(), lambda batch: _indexed(_plain_inputs(batch)))


def _plain_attention(work: Workload) -> Way:
    way = _ours(work)
    return replace(way, step=_with_math_attention(way.step))


def _plain_optimiser(work: Workload) -> Way:
    return _learning(work, work.model(), _plain_inputs, fused=False)


def _none_of_these(work: Workload) -> Way:
    model = _with_convolutions(work.model())
    way = _learning(
        work,
        model,
        lambda batch: _indexed(_all_cells(_padded(_plain_inputs(batch)))),
        _loss_everywhere(model, work),
        fused=False,
    )
    return replace(way, step=_with_math_attention(way.step))


def _vilt(work: Workload) -> Way:
    torch.manual_seed(0)
    vilt = ViltStep(work.shape, work.config().recon.weight).train()
    return Way(vilt, _plain_inputs, _stepping(vilt, vilt, fused=True))


def _vilt_padded(work: Workload) -> Way:
    return replace(_vilt(work), prepare=_uncut_inputs)


WAYS: dict[str, Callable[[Workload], Way]] = {
    "ours": _ours,
    "padding computed": _with_padding,
    "hidden cells embedded": _embedding_hidden_cells,
    "every row to the end": _all_rows_to_the_end,
    "convolutions": _convolutions,
    "plain indexing": _plain_rows,
    "plain attention": _plain_attention,
    "plain optimiser": _plain_optimiser,
    "none of these": _none_of_these,
    "vilt": _vilt,
    "vilt, padded": _vilt_padded,
}


def _learning(
    work: Workload,
    model: MlimModel,
    prepare: Callable[[Batch], BatchTensors],
    loss: Loss | None = None,
    *,
    fused: bool = True,
) -> Way:
    return Way(model, prepare, _stepping(model, loss or _loss_of(model, work), fused=fused))


def _stepping(model: nn.Module, loss: Loss, *, fused: bool) -> Callable[[BatchTensors], None]:
    """Zero, forward, backward, clip, update."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused, foreach=False)

    def step(inputs: BatchTensors) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(inputs).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def _loss_of(model: MlimModel, work: Workload) -> Loss:
    recon_weight = work.config().recon.weight

    def loss(inputs: BatchTensors) -> Tensor:
        logits_MV, picture_B3HW = model(*inputs[:6])
        mlm = F.cross_entropy(logits_MV, inputs.token_ids_BT[inputs.token_hidden_BT])
        return mlm + recon_weight * (picture_B3HW - inputs.pixels_B3HW).square().sum(1).mean()

    return loss


def _loss_everywhere(model: MlimModel, work: Workload) -> Loss:
    """Logits at all text positions, and every row through the last layer."""
    recon_weight = work.config().recon.weight

    def loss(inputs: BatchTensors) -> Tensor:
        states = model.encode(*inputs[:6])
        labels_BT = inputs.token_ids_BT.masked_fill(~inputs.token_hidden_BT, -100)
        mlm = F.cross_entropy(model.mlm_logits(states.tokens_BTD.flatten(0, 1)), labels_BT.flatten())
        picture_B3HW = model.reconstruct(states.cells_BND)
        return mlm + recon_weight * (picture_B3HW - inputs.pixels_B3HW).square().sum(1).mean()

    return loss


def _plain_inputs(batch: Batch) -> BatchTensors:
    return to_tensors(batch, CPU)


def _uncut_inputs(batch: Batch) -> BatchTensors:
    """Padded to the longest text that the set could hold."""
    inputs = to_tensors(batch, CPU)
    more = batch.token_ids_BT.shape[1] - inputs.token_ids_BT.shape[1]
    ids, present, hidden = (
        F.pad(part, (0, more)) for part in (inputs.token_ids_BT, inputs.token_present_BT, inputs.token_hidden_BT)
    )
    return inputs._replace(token_ids_BT=ids, token_present_BT=present, token_hidden_BT=hidden)


def _padded(inputs: BatchTensors) -> BatchTensors:
    """Padding is a row like any other, though nothing attends to it."""
    everything = torch.ones_like(inputs.token_present_BT)
    layout = Layout.of(everything, inputs.cell_hidden_BN, inputs.token_hidden_BT)
    return inputs._replace(layout=layout._replace(attend_B11S=inputs.layout.attend_B11S))


def _all_cells(inputs: BatchTensors) -> BatchTensors:
    """As much is embedded as if all cells were visible; which of them are makes no difference to the time."""
    everything = torch.arange(inputs.cell_hidden_BN.numel())
    return inputs._replace(layout=inputs.layout._replace(visible_cell_V=everything))


def _indexed(inputs: BatchTensors) -> BatchTensors:
    return inputs._replace(layout=_IndexedLayout._make(inputs.layout))


class _IndexedLayout(Layout):
    """Rows and places with autograd's own gradients of an index."""

    def unpack(self, x_PD: Tensor) -> Tensor:
        padded = x_PD.new_zeros(self.row_BS.numel(), x_PD.shape[1]).index_copy(0, self.place_P, x_PD)
        return padded.view(*self.row_BS.shape, -1)

    def pack(self, x_BSD: Tensor, num_rows: int) -> Tensor:
        return x_BSD.flatten(0, 1).index_select(0, self.place_P[:num_rows])


def _with_math_attention(step: Callable[[BatchTensors], None]) -> Callable[[BatchTensors], None]:
    def plain(inputs: BatchTensors) -> None:
        with sdpa_kernel(SDPBackend.MATH):
            step(inputs)

    return plain


def _with_convolutions(model: MlimModel) -> MlimModel:
    """The same weights in torch's own convolutions."""
    embedder, decoder = model.image_embedder, model.image_decoder
    assert isinstance(embedder, ShallowCnn), "what a size has by itself"
    model.image_embedder = _ConvolvingEmbedder(embedder.layers)
    model.image_decoder = _ConvolvingDecoder(decoder.layers, math.isqrt(model.config.num_cells))  # type: ignore[assignment]
    return model


class _ConvolvingEmbedder(nn.Module):
    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, pixels_B3HW: Tensor, cell_V: Tensor) -> Tensor:
        x = pixels_B3HW * 2.0 - 1.0
        for layer in self.layers:
            x = F.conv2d(x, layer.weight, layer.bias, stride=2) if isinstance(layer, MergeBlocks) else layer(x)
        return x.flatten(2).transpose(1, 2).flatten(0, 1).index_select(0, cell_V)


class _ConvolvingDecoder(nn.Module):
    def __init__(self, layers: nn.Sequential, grid_side: int) -> None:
        super().__init__()
        self.layers = layers
        self.grid_side = grid_side

    def forward(self, cells_BND: Tensor) -> Tensor:
        x = cells_BND.transpose(1, 2).unflatten(2, (self.grid_side, self.grid_side))
        for layer in self.layers:
            if isinstance(layer, SplitBlocks):
                x = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
            else:
                x = layer(x)
        return x


def bare_loop(work: Workload, model: MlimModel) -> Callable[[list[Batch]], None]:
    """A plain loop over batches in memory, as one writes it without a library."""
    step = _stepping(model, _loss_of(model, work), fused=True)

    def run(batches: list[Batch]) -> None:
        for batch in batches:
            step(to_tensors(batch, CPU))

    return run
