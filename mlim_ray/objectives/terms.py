"""What every loss gives: sums and counts per record, so that means can be taken over the global batch."""

from typing import NamedTuple

from torch import Tensor


class LossTerms(NamedTuple):
    """A loss before its mean is taken.

    The mean is `sum_B.sum() / count`, with the count of the whole global batch (contract C3). Without any target the
    sum is a zero that still reaches every parameter, so the mean over max(count, 1) is a clean zero.
    """

    sum_B: Tensor
    """sum of the errors of each record's targets, with gradient"""
    count_B: Tensor
    """number of targets of each record, float"""
