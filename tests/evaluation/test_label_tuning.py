"""Fine-tuning starts where the linear probe ended, and goes on from there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.evaluation.encode import pooled_features
from mlim_ray.evaluation.label_tuning import Labeller, tuned_predictions
from mlim_ray.evaluation.labelled import Labelled
from mlim_ray.evaluation.linear_classifier import linear_classifier
from tests.builders import make_model
from tests.evaluation.kinds import kinds_of, records_of


@pytest.mark.parametrize("num_kinds", [2, 5])
def test_the_untuned_labeller_is_the_probe(num_kinds: int) -> None:
    model, kinds = make_model().eval(), kinds_of(60, 1, num_kinds)
    records = records_of(kinds, 1)
    features = pooled_features(model, records, "both")
    probe = linear_classifier(1.0).fit(features, kinds)
    with torch.inference_mode():
        probabilities = Labeller(model, probe)(records, "both").softmax(1).numpy()
    np.testing.assert_allclose(probabilities, probe.predict_proba(features), atol=1e-4)


def test_tuning_learns_what_the_frozen_states_do_not_tell() -> None:
    model = make_model()
    kinds, other = kinds_of(200, 1), kinds_of(60, 2)
    train, test = records_of(kinds, 1), records_of(other, 2)
    # So strong a penalty leaves the probe far from what can be told.
    probe = linear_classifier(1e-4).fit(pooled_features(model, train, "image"), kinds)
    config = FineTuneConfig(num_epochs=8.0, batch_size=20, learning_rate=5e-3)
    told: list[tuple[str, int, int]] = []
    predicted = tuned_predictions(
        model, Labelled(train, kinds), test, "image", probe, config, 0, lambda *done: told.append(done), "here"
    )
    frozen = probe.score(pooled_features(model, test, "image"), other)
    assert (predicted == other).mean() > max(0.95, frozen)
    assert told[-1] == ("classify: here", 80, 80)
