"""The losses of a run: the model's masked pass, and every objective's terms of it.

A chosen part is a class of its own; what a config leaves out is not built, and costs nothing.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mlim_ray.config import (
    FeatureReconConfig,
    HogReconConfig,
    NormalisedReconConfig,
    PretrainConfig,
    ReconConfig,
)
from mlim_ray.model import MlimModel
from mlim_ray.objectives.balance import ExpertBalance
from mlim_ray.objectives.features import Features
from mlim_ray.objectives.hog import Hog
from mlim_ray.objectives.inputs import BatchTensors, Peers
from mlim_ray.objectives.itc import Itc
from mlim_ray.objectives.itm import Itm
from mlim_ray.objectives.mlm import Mlm
from mlim_ray.objectives.normalised import Normalised
from mlim_ray.objectives.objective import Objective, Pass
from mlim_ray.objectives.recon import Recon
from mlim_ray.objectives.terms import LossTerms
from mlim_ray.objectives.text_attentive import cell_choice

LISTENER = "decoder"
"""name of the loss of a decoder that the encoder learns nothing from"""


class Losses(nn.Module):
    """The model with its objectives; what they train beside it begins from the seed alone, on the model's device."""

    def __init__(self, model: MlimModel, config: PretrainConfig) -> None:
        super().__init__()
        self.model = model
        self._choose_cells = cell_choice(config.masking)
        # The model's own random numbers stay what they are without these.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.objectives = nn.ModuleList(objectives_of(model, config)).to(model.device)

    def __iter__(self) -> Iterator[Objective]:
        for objective in self.objectives:
            assert isinstance(objective, Objective)
            yield objective

    @property
    def weights(self) -> dict[str, float]:
        """Of each loss, by name."""
        return {objective.name: objective.weight for objective in self}

    @property
    def needs_peers(self) -> bool:
        """Whether an objective compares records."""
        return any(objective.needs_peers for objective in self)

    def num_targets(self, cell_hidden_BN: NDArray[np.bool_], token_hidden_BT: NDArray[np.bool_]) -> list[int]:
        """Of each objective in a worker's share of a batch."""
        return [objective.num_targets(cell_hidden_BN, token_hidden_BT) for objective in self]

    def forward(self, inputs: BatchTensors, peers: Peers | None = None) -> list[LossTerms]:
        """The terms of each objective."""
        inputs = self._choose_cells(self.model, inputs)
        passed = Pass(self.model, inputs, self.model.target_states(*inputs[:6]), peers)
        return [objective(passed) for objective in self]


def objectives_of(model: MlimModel, config: PretrainConfig) -> list[Objective]:
    """The objectives that a config asks for: MLM, the picture's, and what else has a weight."""
    found: list[Objective] = [Mlm("mlm", config.mlm.weight), *_of_pictures(model, config)]
    if model.config.num_mixture_layers and config.balance.weight:
        found.append(ExpertBalance(config.balance, model.config))
    if config.itm.weight:
        found.append(Itm(config.itm, model.config))
    if config.itc.weight:
        found.append(Itc(config.itc, model.config))
    return found


def loss_names(config: PretrainConfig) -> tuple[str, ...]:
    """The names of the losses that a run with this config logs, in the order of `objectives_of`."""
    has_experts = config.model.encoder.kind == "mixture"
    others = {
        LISTENER: not isinstance(config.recon, ReconConfig),
        "balance": has_experts and config.balance.weight,
        "itm": config.itm.weight,
        "itc": config.itc.weight,
    }
    return ("mlm", "recon", *(name for name, is_there in others.items() if is_there))


def _of_pictures(model: MlimModel, config: PretrainConfig) -> list[Objective]:
    """The chosen image target; with any but the decoder's own, the decoder listens, so that probes and pictures mean
    the same in every run (our choice)."""
    shape, recon = model.config, config.recon
    match recon:
        case ReconConfig():
            return [Recon(recon, shape)]
        case NormalisedReconConfig():
            target: Objective = Normalised(recon, shape)
        case HogReconConfig():
            target = Hog(recon, shape)
        case FeatureReconConfig():
            target = Features(recon, model)
    return [target, Recon(ReconConfig(weight=1.0, detached=True), shape, LISTENER)]
