"""A run's own targets: by hand, and the wrong partner is on the side that is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.evaluation.own_targets import own_targets
from mlim_ray.objectives import Losses
from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_model, make_records


@pytest.mark.parametrize(
    "recon", [{"kind": "pixels"}, {"kind": "normalised"}, {"kind": "features"}, {"detached": True}]
)
def test_the_losses_are_those_of_hidden_targets_with_either_partner(recon: dict[str, object]) -> None:
    config = make_config(recon=recon)
    losses, records, masking = Losses(make_model(), config), make_records(9), make_masking(config)
    partner = np.roll(np.arange(9), 1)
    found = {each.name: each for each in own_targets(losses, records, partner, masking)}
    assert set(found) == ({"mlm"} if "detached" in recon else {"mlm", "recon"})
    true = to_tensors(make_batch(records, 0, masking), torch.device("cpu"))
    other = to_tensors(make_batch(records.take(partner), 0, masking), torch.device("cpu"))
    model = losses.model.eval()
    hidden = true.token_hidden_BT
    for picture, told in ((true, found["mlm"].paired), (other, found["mlm"].shuffled)):
        logits = model.mlm_logits(model.encode(picture.pixels_B3HW, *true[1:5]).tokens_BTD[hidden])
        nll = torch.nn.functional.cross_entropy(logits, true.token_ids_BT[hidden]).detach()
        assert told == pytest.approx(float(nll), rel=1e-4)
    if "recon" not in found:
        return
    objective = next(each for each in losses if each.name == "recon")
    for text, told in ((true, found["recon"].paired), (other, found["recon"].shuffled)):
        cells = model.encode(
            true.pixels_B3HW, text.token_ids_BT, text.token_present_BT, true.cell_hidden_BN, text.token_hidden_BT
        ).cells_BND
        if recon["kind"] == "pixels":
            error = (model.reconstruct(cells) - true.pixels_B3HW).square().sum(1)
            of_cells = error.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).mean(3).flatten(1)
        else:
            of_cells = (objective.head(cells) - objective.targets(model, true)).square().mean(2)
        assert told == pytest.approx(float(of_cells.detach()[true.cell_hidden_BN].mean()), rel=1e-4)
