"""The costs of a step: operations against the model's own formula, and memory that follows from shapes."""

from __future__ import annotations

import pytest

from mlim_ray.model.flops import step_flops
from mlim_ray.objectives import Losses
from mlim_ray.training.batch import make_batch
from mlim_ray.training.costs import step_costs
from mlim_ray.training.throughput import contents_of
from tests.builders import make_config, make_masking, make_model, make_records


def test_operations_are_those_of_the_formula() -> None:
    config, records = make_config(), make_records(24)
    records = records._replace(num_tokens_R=records.num_tokens_R * 0 + records.token_ids_RT.shape[1])
    losses, batch = Losses(make_model(), config), make_batch(records, 0, make_masking(config))
    found = step_costs(losses, batch, 0)
    assert found.num_parameters == sum(weight.numel() for weight in losses.parameters())
    # Without padding; the formula leaves out what is no product.
    expected = step_flops(losses.model.config, contents_of(batch)) / 24
    assert found.flops_per_record == pytest.approx(expected, rel=0.03)
    assert all(weight.grad is None for weight in losses.parameters())


def test_what_is_trained_beside_the_model_counts() -> None:
    def costs(**sections: dict[str, object]) -> tuple[int, float, int]:
        config = make_config(**sections)
        batch = make_batch(make_records(24), 0, make_masking(config))
        found = step_costs(Losses(make_model(), config), batch, 0)
        return found.num_parameters, found.flops_per_record, found.num_bytes

    plain, itm, itc = costs(), costs(itm={"weight": 1.0}), costs(itc={"weight": 1.0})
    assert itm[0] == plain[0] + 33 and 1.4 * plain[1] < itm[1] < 2.2 * plain[1] and itm[2] > 1.4 * plain[2]
    assert itc[0] == plain[0] + 2 * 32 * 128 and itc[1] > itm[1]
    features = costs(recon={"kind": "features"})
    assert features[0] == plain[0] + 2 * (32 * 32 + 32)
    assert features[2] > plain[2] + 4 * plain[0]
