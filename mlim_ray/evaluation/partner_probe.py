"""The partner probe, the paper's own evidence of cross-modal use: losses with the true, a wrong and no partner.

MLM at a hidden ratio: that share of the words is hidden and the picture is the record's own, another record's, or
blank (all cells hidden). RECON: that share of the cells is hidden and the title is the record's own, another's, or
blank (all words hidden). Masks are fixed and seeded, the same for every trial (contract C5).

Legend: B records, N image cells, T token positions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.data.counter import draw
from mlim_ray.data.records import Records
from mlim_ray.masking import Masks, Ratios, hide
from mlim_ray.model import MlimModel
from mlim_ray.objectives import LossTerms, mlm_terms, recon_terms
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Batch, masked
from mlim_ray.training.tensors import to_tensors

HIDDEN_RATIOS = (0.2, 0.5, 0.8, 1.0)
PAPER_RATIO = 0.8
_BATCH_RECORDS = 256
_SHUFFLE = 21


@dataclass(frozen=True)
class ProbeSet:
    """Held-out records, their wrong partners, and the figures that losses are normalised by."""

    records: Records
    partner_B: NDArray[np.int64]
    """record whose picture or title stands in when partners are shuffled; always one with another title"""
    seed: int
    unigram_entropy: float
    """nats per piece of the training split"""
    pixel_variance: float
    """of the training split, summed over channels"""
    num_cells: int

    def masks(self, cell_ratio: float, word_ratio: float) -> Masks:
        """The probe's masks at two ratios."""
        num_records = len(self.records.key_hash_R)
        ratios = Ratios(
            np.zeros(num_records, np.int8), np.full(num_records, cell_ratio), np.full(num_records, word_ratio)
        )
        return hide(
            ratios,
            self.seed,
            np.zeros(num_records, np.int64),
            self.records.key_hash_R,
            self.num_cells,
            self.records.word_of_token_RT,
        )


class RecordLosses(NamedTuple):
    """One loss before its mean is taken, by record; the mean over records is the sum of sums over the sum of counts."""

    sum_B: NDArray[np.float64]
    count_B: NDArray[np.float64]
    """hidden pieces, or pixels"""


@dataclass(frozen=True)
class PartnerLosses:
    """Unweighted losses at one hidden ratio; a partner that was not probed is None."""

    hidden_ratio: float
    mlm_paired: float
    recon_paired: float
    recon_of_hidden: float
    """RECON with the true title, of hidden cells alone"""
    mlm_shuffled: float | None = None
    mlm_blank: float | None = None
    recon_shuffled: float | None = None
    recon_blank: float | None = None


def make_probe_set(
    records: Records, *, num_cells: int, seed: int, unigram_entropy: float, pixel_variance: float
) -> ProbeSet:
    """Pair each record with a wrong partner.

    Raises:
        ValueError: all records have the same title, so no wrong partner exists.
    """
    return ProbeSet(records, _wrong_partners(records, seed), seed, unigram_entropy, pixel_variance, num_cells)


def probe_partners(model: MlimModel, probe: ProbeSet, *, wrong_partners: bool) -> list[PartnerLosses]:
    """Losses at every hidden ratio; without `wrong_partners` only those with the true partner."""
    was_training = model.training
    model.eval()
    try:
        return [_probe_ratio(model, probe, ratio, wrong_partners) for ratio in HIDDEN_RATIOS]
    finally:
        model.train(was_training)


def partner_measures(losses: list[PartnerLosses], probe: ProbeSet) -> dict[str, float]:
    """What trials are compared by (contract C5); lower is better, 1 is knowing only frequencies and the mean pixel.

    `mlm` and `recon` are means over hidden ratios, with the true partner, of MLM / unigram entropy and RECON / pixel
    variance; `probe` is the mean of the two. RECON counts hidden cells only: with the whole picture, a trial that
    rebuilds hidden cells alone (`recon.target` masked) would lose whatever it learned.
    """
    mlm = float(np.mean([at.mlm_paired for at in losses])) / probe.unigram_entropy
    recon = float(np.mean([at.recon_of_hidden for at in losses])) / probe.pixel_variance
    return {"probe": (mlm + recon) / 2, "mlm": mlm, "recon": recon}


def losses_of_records(model: MlimModel, probe: ProbeSet, ratio: float) -> dict[str, RecordLosses]:
    """The losses at one hidden ratio by record, under the names of `PartnerLosses`."""
    was_training = model.training
    model.eval()
    losses = {}
    try:
        for name, batch in _batches(probe, ratio):
            losses[name], *of_hidden = _of_records(model, batch, _terms_of(name, model))
            if name == "recon_paired":
                (losses["recon_of_hidden"],) = of_hidden
    finally:
        model.train(was_training)
    return losses


def _probe_ratio(model: MlimModel, probe: ProbeSet, ratio: float, wrong_partners: bool) -> PartnerLosses:
    losses: dict[str, float] = {}
    for name, batch in _batches(probe, ratio):
        if not wrong_partners and not name.endswith("_paired"):
            continue
        mean, *of_hidden = _means(model, batch, _terms_of(name, model))
        losses[name] = mean
        if name == "recon_paired":
            (losses["recon_of_hidden"],) = of_hidden
    return PartnerLosses(ratio, **losses)


def _batches(probe: ProbeSet, ratio: float) -> Iterator[tuple[str, Batch]]:
    """What is asked of a model at one hidden ratio, by the name of the loss."""
    records = probe.records
    words, cells = probe.masks(0.0, ratio), probe.masks(ratio, 0.0)
    all_hidden = probe.masks(1.0, 1.0)
    mlm, recon = masked(records, words), masked(records, cells)
    other = records.take(probe.partner_B)
    yield "mlm_paired", mlm
    yield "recon_paired", recon
    yield "mlm_shuffled", mlm._replace(pixels_BHW3=other.pixels_RHW3)
    yield "mlm_blank", mlm._replace(cell_hidden_BN=all_hidden.cell_hidden_BN)
    yield "recon_shuffled", recon._replace(token_ids_BT=other.token_ids_RT, num_tokens_B=other.num_tokens_R)
    yield "recon_blank", recon._replace(token_hidden_BT=all_hidden.token_hidden_BT)


_Terms = Callable[[BatchTensors], Sequence[LossTerms]]


def _terms_of(name: str, model: MlimModel) -> _Terms:
    """The loss of that name; RECON of the whole pictures first, then of their hidden cells alone."""

    def mlm(inputs: BatchTensors) -> tuple[LossTerms]:
        states = model.encode(*inputs[:5])
        logits_MV = model.mlm_logits(states.tokens_BTD[inputs.token_hidden_BT])
        return (mlm_terms(logits_MV, inputs.token_ids_BT, inputs.token_hidden_BT),)

    def recon(inputs: BatchTensors) -> tuple[LossTerms, LossTerms]:
        reconstruction_B3HW = model.reconstruct(model.encode(*inputs[:5]).cells_BND)
        shown = reconstruction_B3HW, inputs.pixels_B3HW, inputs.cell_hidden_BN
        return recon_terms(*shown, "whole"), recon_terms(*shown, "masked")

    return mlm if name.startswith("mlm") else recon


@torch.inference_mode()
def _means(model: MlimModel, batch: Batch, terms: _Terms) -> list[float]:
    sums: list[list[float]] = []
    for part in slices(len(batch.key_hash_B)):
        found = terms(to_tensors(batch.take(part), model.device))
        sums.append([float(value) for sum_B, count_B in found for value in (sum_B.sum(), count_B.sum())])
    totals = [math.fsum(column) for column in zip(*sums, strict=True)]
    return [total / max(count, 1.0) for total, count in zip(totals[::2], totals[1::2], strict=True)]


@torch.inference_mode()
def _of_records(model: MlimModel, batch: Batch, terms: _Terms) -> list[RecordLosses]:
    parts = [terms(to_tensors(batch.take(part), model.device)) for part in slices(len(batch.key_hash_B))]
    return [
        RecordLosses(*(torch.cat(column).double().cpu().numpy() for column in zip(*of_loss, strict=True)))
        for of_loss in zip(*parts, strict=True)
    ]


def slices(num_records: int) -> Iterator[slice]:
    """Slices of an evaluation batch's size that cover range(num_records)."""
    return (slice(start, start + _BATCH_RECORDS) for start in range(0, num_records, _BATCH_RECORDS))


def _wrong_partners(records: Records, seed: int) -> NDArray[np.int64]:
    """For each record another one with another title: its successor in a seeded order, skipping equal titles."""
    order = draw(seed, _SHUFFLE, records.key_hash_R).argsort(kind="stable")
    titles = [row.tobytes() for row in records.token_ids_RT]
    partner_B = np.empty(len(order), np.int64)
    for place, index in enumerate(order):
        for distance in range(1, len(order)):
            other = order[(place + distance) % len(order)]
            if titles[other] != titles[index]:
                partner_B[index] = other
                break
        else:
            raise ValueError(
                f"all {len(order)} held-out records have the same title, so no wrong partner can be shown; "
                "check --prepare.text-column"
            )
    return partner_B
