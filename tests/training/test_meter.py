"""The logged losses are means over all targets since the last line, in total and by mode."""

from __future__ import annotations

import pytest
import torch

from mlim_ray.objectives import LossTerms
from mlim_ray.training.meter import LossMeter


def terms(sums: list[float], counts: list[float]) -> LossTerms:
    return LossTerms(torch.tensor(sums, requires_grad=True), torch.tensor(counts))


def test_means_are_over_targets_not_over_steps() -> None:
    meter = LossMeter(("mlm", "recon"), ("image", "text"), torch.device("cpu"))
    meter.add([terms([0.0, 6.0], [0.0, 3.0]), terms([10.0, 2.0], [4.0, 4.0])], torch.tensor([0, 1]))
    meter.add([terms([9.0], [2.0]), terms([1.0], [4.0])], torch.tensor([1]))
    meter.commit()
    weights = {"mlm": 0.5, "recon": 2.0}
    expected = {
        "loss/mlm": 15 / 5,
        "loss/recon": 13 / 12,
        "loss/total": 0.5 * 15 / 5 + 2.0 * 13 / 12,
        "loss/recon/image": 10 / 4,
        "loss/mlm/text": 15 / 5,
        "loss/recon/text": 3 / 8,
    }
    assert meter.read_and_reset(weights) == pytest.approx(expected)
    assert meter.read_and_reset(weights) == {"loss/total": 0.0, "loss/mlm": 0.0, "loss/recon": 0.0}
