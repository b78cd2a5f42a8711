"""Fine-tuning of a copy of the whole encoder on labels, from where its linear probe ended.

A head that starts anew moves the encoder before it knows where to, and a few epochs end below the probe; one that
starts as the probe ends above it (Kumar and others 2022, "Fine-tuning can distort pretrained features").

Legend: B records, L labels, D width.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.bench import OnProgress
from mlim_ray.evaluation.examples import slices
from mlim_ray.evaluation.fine_tuning import fine_tune
from mlim_ray.evaluation.labelled import Labelled
from mlim_ray.evaluation.showing import Shown, encode_pooled
from mlim_ray.model import MlimModel

_TOGETHER = 256


class Labeller(nn.Module):
    """A linear head on standardised pooled states: at first, exactly a fitted linear probe of the encoder."""

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, model: MlimModel, probe: Pipeline) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model)
        scaler, regression = probe[0], probe[-1]
        weight_LD, bias_L = regression.coef_, regression.intercept_
        if len(weight_LD) == 1:
            # Of two labels scikit-learn keeps the difference of the logits.
            weight_LD, bias_L = np.vstack([-weight_LD, weight_LD]) / 2, np.concatenate([-bias_L, bias_L]) / 2

        def tensor(values: NDArray[np.floating]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).float().to(model.device)

        self.register_buffer("mean_D", tensor(scaler.mean_))
        self.register_buffer("std_D", tensor(scaler.scale_))
        self.head = nn.Linear(weight_LD.shape[1], weight_LD.shape[0], device=model.device)
        self.head.weight.data.copy_(tensor(weight_LD))
        self.head.bias.data.copy_(tensor(bias_L))

    def forward(self, records: Records, shown: Shown) -> Tensor:
        """Logits [B, L]."""
        states_BD = encode_pooled(self.encoder, records, shown)
        out: Tensor = self.head((states_BD - self.mean_D) / self.std_D)
        return out


def tuned_predictions(
    model: MlimModel,
    train: Labelled,
    records: Records,
    shown: Shown,
    probe: Pipeline,
    config: FineTuneConfig,
    seed: int,
    on_progress: OnProgress,
    name: str,
) -> NDArray[np.int64]:
    """Labels that a copy of the model, trained on the labels, gives these records.

    `probe` is a `linear_classifier` fitted on `pooled_features` of the training records, its labels 0, 1, ...
    """
    labeller = Labeller(model, probe)

    def loss_of(index: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        logits_BL = labeller(train.records.take(index), shown)
        return F.cross_entropy(logits_BL.float(), torch.from_numpy(train.label_R[index]).to(model.device))

    fine_tune(
        labeller,
        loss_of,
        len(train),
        config,
        model.config.hidden_size,
        seed,
        lambda done, of: on_progress(f"classify: {name}", done, of),
    )
    with torch.inference_mode():
        parts = [
            labeller(records.take(part), shown).argmax(1).cpu().numpy()
            for part in slices(len(records.key_hash_R), _TOGETHER)
        ]
    return np.concatenate(parts)
