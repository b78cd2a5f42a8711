"""On a smaller grid, a model is the model of that size whose positions are means of the full ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlim_ray.model import MlimModel
from mlim_ray.model.positions import positions_on
from mlim_ray.objectives import Losses
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.peers import meet
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_model, make_records
from tests.model.parts import PARTS

CPU = torch.device("cpu")
HALF = {"resolution": {"start_ratio": 0.5}}


def small_batch(num_records: int = 12) -> Batch:
    """Pictures of 2 x 2 cells, where the model's have 4 x 4."""
    return make_batch(make_records(num_records), 0, make_masking(make_config(**HALF)).at(0))


def small_inputs() -> BatchTensors:
    return to_tensors(small_batch(), CPU)


def model_of_that_size(model: MlimModel, **parts: Any) -> MlimModel:
    small = make_model(image_size=8, **parts)
    weights = model.state_dict()
    small.load_state_dict(weights | {"cell_positions": positions_on(4, model.cell_positions).detach()})
    return small


def test_positions_of_the_full_grid_are_the_models_own() -> None:
    positions = torch.nn.Parameter(torch.rand(49, 3))
    assert positions_on(49, positions) is positions


@pytest.mark.parametrize(("full", "side"), [(4, 2), (4, 1), (9, 3)])
def test_positions_of_whole_factors_are_means(full: int, side: int) -> None:
    positions = torch.randn(full**2, 5)
    factor = full // side
    mean = positions.view(side, factor, side, factor, 5).mean((1, 3)).view(side**2, 5)
    torch.testing.assert_close(positions_on(side**2, positions), mean)


@pytest.mark.parametrize(("full", "side"), [(7, 4), (4, 3), (12, 7), (7, 1)])
def test_every_position_has_its_share_in_all_together(full: int, side: int) -> None:
    positions = torch.randn(full**2, 5, requires_grad=True)
    small = positions_on(side**2, positions)
    small.sum().backward()
    assert positions.grad is not None
    # A cell of the full grid is covered as much as any other.
    torch.testing.assert_close(positions.grad, torch.full_like(positions, (side / full) ** 2))
    # Rows and columns keep their order: what rises over the full grid rises over the small one.
    rising = torch.arange(full, dtype=torch.float32)
    of_rows = positions_on(side**2, rising.repeat_interleave(full)[:, None]).view(side, side)
    of_columns = positions_on(side**2, rising.repeat(full)[:, None]).view(side, side)
    torch.testing.assert_close(of_rows, of_columns.T)
    assert (of_rows.diff(dim=0) > 0).all()
    torch.testing.assert_close(of_rows[:, :1].expand(side, side), of_rows)


@pytest.mark.parametrize("parts", [{}, *PARTS.values()], ids=["plain", *PARTS])
def test_every_part_works_on_a_smaller_grid(parts: dict[str, Any]) -> None:
    model, inputs = make_model(**parts), small_inputs()
    small = model_of_that_size(model, **parts)
    logits, picture = model(*inputs[:6])
    assert picture.shape == inputs.pixels_B3HW.shape == (12, 3, 8, 8)
    for ours, theirs in zip((logits, picture), small(*inputs[:6]), strict=True):
        assert torch.equal(ours, theirs)
    (logits.square().mean() + picture.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    # Each cell of the full grid has its own position, and each of them learns.
    assert model.cell_positions.grad is not None and model.cell_positions.grad.any(1).all()


@pytest.mark.parametrize(
    "sections",
    [
        {"recon": {"target": "whole"}},
        {"recon": {"target": "masked", "error": "absolute"}},
        {"recon": {"kind": "normalised"}},
        {"recon": {"kind": "hog", "pixels": 4}},
        {"recon": {"kind": "features"}, "masking": {"kind": "text_attentive"}},
    ],
    ids=str,
)
def test_every_objective_works_on_a_smaller_grid(sections: dict[str, Any]) -> None:
    config = make_config(**{"itm": {"weight": 1.0}, "itc": {"weight": 1.0}} | sections)
    model, batch = make_model(), small_batch()
    peers = meet(batch, 0, CPU, in_parts=False).peers(0, 12)
    found = {}
    for name, each in (("full", model), ("small", model_of_that_size(model))):
        losses = Losses(each, config)
        counts = losses.num_targets(batch.cell_hidden_BN, batch.token_hidden_BT)
        terms = losses(to_tensors(batch, CPU), peers)
        assert [int(term.count_B.sum()) for term in terms] == counts
        found[name] = torch.stack([term.sum_B for term in terms])
    assert len(found["full"]) >= 4
    torch.testing.assert_close(found["full"], found["small"], rtol=0.0, atol=0.0)
