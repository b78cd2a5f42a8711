"""The linear classifier of frozen features."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

_NUM_ITERATIONS = 100


def linear_classifier(inverse_strength: float) -> Pipeline:
    """Logistic regression on standardised features, to be fitted on two labels or more.

    Args:
        inverse_strength: of the L2 penalty, scikit-learn's C.
    """
    return make_pipeline(StandardScaler(), LogisticRegression(C=inverse_strength, max_iter=_NUM_ITERATIONS))


@contextmanager
def iterations_bounded() -> Iterator[None]:
    """Fit without warnings that it has not converged: a fixed number of iterations is part of the definition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
