"""Smaller pictures, exactly: a pixel is the mean of the area that it covers, rounded to the nearest stored value.

Legend: R records, H and W pixels, F few parts, M many parts.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PICTURES_TOGETHER = 64


def shrink(pixels_RHW3: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Square pictures with fewer pixels a side; halves are rounded up."""
    num_pictures, size = pixels_RHW3.shape[:2]
    # The sums are whole numbers: as long as the type holds those, no order of adding up and no machine changes them.
    exact = np.float32 if 255 * size**2 < 2**24 else np.float64
    weights_FM: NDArray[Any] = overlaps(size, image_size).astype(exact)
    out = np.empty((num_pictures, image_size, image_size, 3), np.uint8)
    for first in range(0, num_pictures, _PICTURES_TOGETHER):
        part: NDArray[Any] = pixels_RHW3[first : first + _PICTURES_TOGETHER].astype(exact)
        rows = (weights_FM @ part.reshape(len(part), size, -1)).reshape(len(part), image_size, size, 3)
        sums = (np.ascontiguousarray(rows.transpose(0, 1, 3, 2)) @ weights_FM.T).transpose(0, 1, 3, 2).astype(np.int64)
        out[first : first + len(part)] = (2 * sums + size**2) // (2 * size**2)
    return out


@lru_cache(maxsize=16)
def overlaps(many: int, few: int) -> NDArray[np.int64]:
    """How much of each of `many` equal parts of a length lies in each of `few`, [F, M]: the length is `many * few`."""
    few_F1, many_M = many * np.arange(few)[:, None], few * np.arange(many)
    shared_FM: NDArray[np.int64] = np.minimum(few_F1 + many, many_M + few) - np.maximum(few_F1, many_M)
    return shared_FM.clip(0)
