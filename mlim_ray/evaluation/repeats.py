"""Texts and pictures that several records share.

Legend: R records.
"""

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.records import Records


def text_digests(records: Records) -> NDArray[np.str_]:
    """One string for each record [R], the same for texts that are the same to a model, piece by piece."""
    return _digests(records.token_ids_RT)


def picture_digests(records: Records) -> NDArray[np.str_]:
    """One string for each record [R], the same for pictures that are the same pixel by pixel."""
    return _digests(records.pixels_RHW3)


def num_repeated(records: Records, others: Records, side: Literal["text", "image"]) -> int:
    """How many of the records have a text, or a picture, that one of the others has too."""
    digests = text_digests if side == "text" else picture_digests
    return int(np.isin(digests(records), digests(others)).sum())


def _digests(rows: NDArray[np.int32] | NDArray[np.uint8]) -> NDArray[np.str_]:
    return np.array([hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows])
