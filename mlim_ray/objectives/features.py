"""Features of a slow copy of the encoder as the image target (after SemMIM and MAMO).

Source: SemMIM's abstract (targets from a momentum encoder, text injected into them) and a reviewer's table of MAMO.
The copy is shown the whole picture and the whole text, and a state's target is the copy's state at the same cell,
normalised over its width.
Open: SemMIM's learnable encoding space of K dimensions, shared with a global feature that agrees between views, is not
built, for neither K nor its loss is known; nor is the copy's decay.

Legend: B records, N cells, D width.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from mlim_ray.config import FeatureReconConfig
from mlim_ray.model import MlimModel
from mlim_ray.objectives.cell_head import CellTargets
from mlim_ray.objectives.inputs import BatchTensors


class Features(CellTargets):
    """Mean squared error of the copy's normalised states."""

    def __init__(self, config: FeatureReconConfig, model: MlimModel) -> None:
        width = model.config.hidden_size
        super().__init__(model.config, config.weight, config.target, width, width)
        self._decay = config.decay
        self.teacher = copy.deepcopy(model).requires_grad_(False)

    def begin(self, model: MlimModel) -> None:
        """The copy starts as the model does."""
        self.teacher.load_state_dict(model.state_dict())

    @torch.no_grad()
    def after_step(self, model: MlimModel) -> None:
        """The copy keeps `decay` of itself and takes the rest from the model."""
        own, given = self.teacher.state_dict(), model.state_dict()
        for name, value in own.items():
            value.lerp_(given[name], 1.0 - self._decay)

    @torch.no_grad()
    def targets(self, model: MlimModel, inputs: BatchTensors) -> Tensor:
        """The copy's states of the cells [B, N, D], each with mean 0 and variance 1."""
        self.teacher.eval()
        nothing_BN, nothing_BT = torch.zeros_like(inputs.cell_hidden_BN), torch.zeros_like(inputs.token_hidden_BT)
        states = self.teacher.target_states(
            inputs.pixels_B3HW, inputs.token_ids_BT, inputs.token_present_BT, nothing_BN, nothing_BT
        )
        return F.layer_norm(states.cells_BND.float(), states.cells_BND.shape[-1:])
