"""What may be said of the difference of two figures over the same held-out records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlim_ray.evaluation.bootstrap import bootstrap_mean
from mlim_ray.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Difference:
    """`of` less `than` in a measure, all named as a sentence names them."""

    setting: str
    of: str
    than: str
    measure: str
    value: Estimate

    @property
    def is_above(self) -> bool:
        """Whether `of` is above `than` beyond chance."""
        return self.value.low > 0.0

    @property
    def is_below(self) -> bool:
        """Whether `of` is below `than` beyond chance."""
        return self.value.high < 0.0

    def sentence(self) -> str:
        """In plain words, with the interval."""
        mean, low, high = self.value.mean, self.value.low, self.value.high
        if self.is_above:
            found = f"{self.of} is above {self.than} by {mean:.3f} [{low:.3f}, {high:.3f}]"
        elif self.is_below:
            found = f"{self.of} is below {self.than} by {-mean:.3f} [{-high:.3f}, {-low:.3f}]"
        else:
            found = f"no difference found between {self.of} and {self.than}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        return f"{self.setting}: {found} in {self.measure}"


def paired_difference(
    setting: str,
    of: str,
    than: str,
    measure: str,
    values: NDArray[np.float64],
    others: NDArray[np.float64],
    seed: int,
) -> Difference:
    """The difference of two means over the same records, its interval by drawing records for both at once."""
    return Difference(setting, of, than, measure, bootstrap_mean(values - others, seed=seed))
