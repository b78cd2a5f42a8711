"""Fine-tuning of a copy of the whole encoder on labels.

Legend: B records, L labels.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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
    """A linear head on the pooled state. It starts at zero, all labels equally likely, so that nothing is drawn."""

    def __init__(self, model: MlimModel, num_labels: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model)
        self.head = nn.Linear(model.config.hidden_size, num_labels, device=model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, records: Records, shown: Shown) -> Tensor:
        """Logits [B, L]."""
        out: Tensor = self.head(encode_pooled(self.encoder, records, shown))
        return out


def tuned_predictions(
    model: MlimModel,
    train: Labelled,
    records: Records,
    shown: Shown,
    num_labels: int,
    config: FineTuneConfig,
    seed: int,
    on_progress: OnProgress,
    name: str,
) -> NDArray[np.int64]:
    """Labels that a copy of the model, trained on the labels, gives these records."""
    labeller = Labeller(model, num_labels)

    def loss_of(index: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        logits_BL = labeller(train.records.take(index), shown)
        return F.cross_entropy(logits_BL.float(), torch.from_numpy(train.label_R[index]).to(model.device))

    fine_tune(labeller, loss_of, len(train), config, seed, lambda done, of: on_progress(f"classify: {name}", done, of))
    with torch.inference_mode():
        parts = [
            labeller(records.take(part), shown).argmax(1).cpu().numpy()
            for part in slices(len(records.key_hash_R), _TOGETHER)
        ]
    return np.concatenate(parts)
