"""What a run learned of its own hidden targets from the other side: its losses with the true and with a wrong partner.

Beside the partner probe, which asks every model the same, this asks a model what it was trained for: with its own
masking, its own image target, and the heads that are no part of the exported model.

Legend: B records.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.data.records import Records
from mlim_ray.evaluation.partner_probe import slices
from mlim_ray.model import MlimModel
from mlim_ray.objectives import BatchTensors, Losses, LossTerms, Pass, recon_terms
from mlim_ray.objectives.cell_head import CellTargets
from mlim_ray.objectives.mlm import Mlm
from mlim_ray.objectives.objective import Objective
from mlim_ray.objectives.recon import Recon
from mlim_ray.training.batch import Masking, make_batch
from mlim_ray.training.tensors import to_tensors

Terms = Callable[[BatchTensors, BatchTensors], LossTerms]
"""of what is shown, and of the true records"""


@dataclass(frozen=True)
class OwnTargets:
    """One loss, as a mean over hidden targets."""

    name: str
    paired: float
    shuffled: float
    """with the picture (of MLM) or the title (of image targets) of another record"""

    @property
    def ratio(self) -> float:
        """How much a wrong partner costs; 1: the other side is not read."""
        return self.shuffled / max(self.paired, 1e-12)


@torch.inference_mode()
def own_targets(losses: Losses, records: Records, partner_B: NDArray[np.int64], masking: Masking) -> list[OwnTargets]:
    """The losses of MLM and of the image target, where anything is hidden for them.

    Args:
        losses: of a trained run.
        records: held out.
        partner_B: of each record another one with another title, as `ProbeSet.partner_B`.
        masking: the run's own.
    """
    was_training = losses.training
    losses.eval()
    other = records.take(partner_B)
    true, wrong = (make_batch(each, 0, masking) for each in (records, other))
    shown_with = {
        "mlm": true._replace(pixels_BHW3=wrong.pixels_BHW3),
        "recon": true._replace(
            token_ids_BT=wrong.token_ids_BT, num_tokens_B=wrong.num_tokens_B, token_hidden_BT=wrong.token_hidden_BT
        ),
    }
    found = []
    for objective, terms in _asked(losses):
        sums = np.zeros(3)
        for part in slices(len(partner_B)):
            truth, shuffled = (
                to_tensors(batch.take(part), losses.model.device) for batch in (true, shown_with[objective.name])
            )
            paired, unpaired = terms(truth, truth), terms(shuffled, truth)
            sums += [float(values.sum()) for values in (paired.sum_B, unpaired.sum_B, paired.count_B)]
        if sums[2] > 0:
            found.append(OwnTargets(objective.name, float(sums[0] / sums[2]), float(sums[1] / sums[2])))
    losses.train(was_training)
    return found


def _asked(losses: Losses) -> Iterator[tuple[Objective, Terms]]:
    for objective in losses:
        if isinstance(objective, Mlm):
            yield objective, _of_words(objective, losses.model)
        elif isinstance(objective, CellTargets):
            yield objective, _of_cells(objective, losses.model)
        elif isinstance(objective, Recon) and not objective.is_detached:
            yield objective, _of_pixels(losses.model)


def _of_words(objective: Mlm, model: MlimModel) -> Terms:
    def terms(shown: BatchTensors, truth: BatchTensors) -> LossTerms:
        found: LossTerms = objective(Pass(model, shown, model.target_states(*shown[:6]), None))
        return found

    return terms


def _of_cells(objective: CellTargets, model: MlimModel) -> Terms:
    def terms(shown: BatchTensors, truth: BatchTensors) -> LossTerms:
        cells_BND = model.target_states(*shown[:6]).cells_BND
        hidden_BN = shown.cell_hidden_BN
        error_BN = objective.error_by_cell(cells_BND, objective.targets(model, truth)) * hidden_BN
        return LossTerms(error_BN.sum(1), hidden_BN.sum(1).float())

    return terms


def _of_pixels(model: MlimModel) -> Terms:
    def terms(shown: BatchTensors, truth: BatchTensors) -> LossTerms:
        picture_B3HW = model.reconstruct(model.target_states(*shown[:6]).cells_BND)
        return recon_terms(picture_B3HW, truth.pixels_B3HW, truth.cell_hidden_BN, "masked")

    return terms
