import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from mlim_ray.evaluation.calibration import expected_calibration_error, fit_temperature, probabilities


def by_hand(confidence: list[float], is_right: list[bool], num_bins: int) -> float:
    """ECE as the paper writes it: bin m holds the confidences in ((m - 1) / M, m / M], the first one 0 as well."""
    total = 0.0
    for m in range(num_bins):
        low, high = m / num_bins, (m + 1) / num_bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 0 and c == 0.0)]
        if inside:
            accuracy = sum(is_right[i] for i in inside) / len(inside)
            mean_confidence = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


@given(
    # Multiples of 1/64 lie on the edges of bins exactly where a float says they do.
    st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_the_calibration_error_is_that_of_the_definition(pairs: list[tuple[int, bool]], num_bins: int) -> None:
    confidence, is_right = [c / 64 for c, _ in pairs], [right for _, right in pairs]
    found = expected_calibration_error(np.array(confidence), np.array(is_right), num_bins)
    assert np.isclose(found, by_hand(confidence, is_right, num_bins))


def test_honest_confidence_has_hardly_any_error_and_boasting_has() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1.0, 50_000)
    is_right = rng.uniform(size=50_000) < confidence
    assert expected_calibration_error(confidence, is_right) < 0.01
    assert expected_calibration_error(np.ones(50_000), is_right) > 0.35


def test_the_temperature_mends_logits_that_were_scaled() -> None:
    rng = np.random.default_rng(1)
    logits = 2.0 * rng.normal(size=(20_000, 5))
    classes = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    for scale in (0.25, 1.0, 6.0):
        assert np.isclose(fit_temperature(scale * logits, classes), scale, rtol=0.05)
    scaled = 6.0 * logits
    temperature = fit_temperature(scaled, classes)
    losses = [log_loss(classes, probabilities(scaled, t)) for t in (temperature, 0.9 * temperature, 1.1 * temperature)]
    assert losses[0] == min(losses)


def test_classes_that_are_not_known_change_no_temperature() -> None:
    rng = np.random.default_rng(2)
    logits, classes = rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
    more = np.concatenate([logits, 100.0 * rng.normal(size=(50, 3))])
    assert fit_temperature(more, np.append(classes, np.full(50, -1))) == fit_temperature(logits, classes)
    assert fit_temperature(logits[:0], classes[:0]) == 1.0
