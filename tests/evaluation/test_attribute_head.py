import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlim_ray.evaluation.attribute_head import fit_head
from mlim_ray.evaluation.linear_classifier import iterations_bounded


def examples(num_values: int, num_records: int, seed: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, num_values, num_records)
    features = rng.normal(size=(num_records, 6)) + 1.5 * np.random.default_rng(99).normal(size=(num_values, 6))[classes]
    features[:, 3] = 7.0
    return features.astype(np.float32), [f"value {k}" for k in classes]


@pytest.mark.parametrize("num_values", [2, 4])
def test_probabilities_are_those_of_the_pipeline_that_was_chosen(num_values: int) -> None:
    train, held_out = examples(num_values, 300, 0), examples(num_values, 200, 1)
    head = fit_head(*train, *held_out)
    assert head.inverse_strength is not None
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=head.inverse_strength, max_iter=100))
    with iterations_bounded():
        pipeline.fit(train[0], train[1])
    assert list(head.values) == pipeline.classes_.tolist()
    expected = pipeline.predict_proba(held_out[0])
    logits = head.logits(held_out[0])
    unscaled = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(unscaled, expected, atol=1e-5)
    calibrated = head.probabilities(held_out[0])
    np.testing.assert_allclose(calibrated.sum(1), 1.0)
    assert (calibrated.argmax(1) == expected.argmax(1)).all()
    assert np.mean(np.array(head.values)[calibrated.argmax(1)] == np.array(held_out[1])) > 0.7


def test_values_that_training_lacks_are_no_candidates() -> None:
    features, values = examples(3, 200, 0)
    head = fit_head(features, values, features[:4], ["value 0", "new", "value 1", "value 2"])
    assert head.values == ("value 0", "value 1", "value 2")
    assert head.classes(["new", "value 2"]).tolist() == [-1, 2]


def test_a_single_value_is_told_with_certainty() -> None:
    features, _ = examples(3, 20, 0)
    head = fit_head(features, ["red"] * 20, features, ["red"] * 20)
    assert head.probabilities(features).tolist() == [[1.0]] * 20


def test_nothing_to_learn_from_is_an_error() -> None:
    features, _ = examples(3, 20, 0)
    with pytest.raises(ValueError, match="no record has the attribute"):
        fit_head(features[:0], [], features, ["red"] * 20)
