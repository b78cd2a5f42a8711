"""One retry budget, in seconds by the clock, for whatever is asked of S3."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mlim_ray.data.s3.failures import passes

BUDGET_S = 90.0
BUDGET_VARIABLE = "MLIM_RAY_S3_RETRY_S"
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_TOLD_AFTER_S = 5.0

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class GaveUp(Exception):
    """The last error of something that failed until the budget was used up."""

    def __init__(self, error: Exception, budget_s: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.budget_s = budget_s


class Patience:
    """Waits after each passing error, until the budget is used up since the last success.

    Time counts from the first failure, so that a long transfer may meet any number of short outages.
    """

    def __init__(self, what: str, budget_s: float | None = None) -> None:
        self._what = what
        self._budget_s = retry_budget_s() if budget_s is None else budget_s
        self._failed_since: float | None = None
        self._num_failures = 0
        self._told = False

    def succeeded(self) -> None:
        """Something arrived: the budget is whole again."""
        self._failed_since, self._num_failures = None, 0

    def failed(self, error: Exception) -> None:
        """Wait, to try again. Raises `error` if it will not pass by itself, GaveUp if the budget is used up."""
        if not passes(error):
            raise error
        now = time.monotonic()
        if self._failed_since is None:
            self._failed_since = now
        left_s = self._failed_since + self._budget_s - now
        if left_s <= 0:
            raise GaveUp(error, self._budget_s) from error
        if now - self._failed_since >= _TOLD_AFTER_S and not self._told:
            self._told = True
            logger.warning("%s: S3 fails (%s); asking again for %.0f s", self._what, type(error).__name__, left_s)
        # Full jitter: workers that failed together do not come back together.
        longest_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._num_failures, 10))
        self._num_failures += 1
        time.sleep(min(left_s, random.uniform(_FIRST_WAIT_S / 2, longest_s)))


def retried(what: str, call: Callable[[], Result], budget_s: float | None = None) -> Result:
    """What `call` gives, called again while it raises errors that pass.

    Args:
        what: named in the log.
        call: does the same however often it is called.
        budget_s: seconds after the first failure; None takes `retry_budget_s()`.

    Raises:
        GaveUp: the budget is used up. An error that does not pass is raised as it is.
    """
    patience = Patience(what, budget_s)
    while True:
        try:
            return call()
        except Exception as error:
            patience.failed(error)


def retry_budget_s() -> float:
    """Seconds from BUDGET_VARIABLE, else BUDGET_S. Raises ValueError if they are no number of at least 0."""
    text = os.environ.get(BUDGET_VARIABLE)
    if not text:
        return BUDGET_S
    try:
        budget_s = float(text)
    except ValueError:
        budget_s = -1.0
    if not 0 <= budget_s < float("inf"):
        raise ValueError(f"{BUDGET_VARIABLE}: given {text!r}, expected seconds, such as 90")
    return budget_s
