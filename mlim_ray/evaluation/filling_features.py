"""What an attribute's value is told from: frozen states of the model, and the colours of the picture.

Legend: R records, H and W pixels, X features.
"""

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.embedding import embed
from mlim_ray.evaluation.showing import SHOWN
from mlim_ray.model import MlimModel

LEVELS = 8
"""of each channel in a colour histogram"""
_TOGETHER = 1_024


def colour_histogram(pixels_RHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Roots of the shares [R, LEVELS ** 3] of a picture's pixels by colour, all three channels together.

    Of roots a linear classifier makes more than of shares, most of which are the background's (our choice).
    """
    num_colours = LEVELS**3
    out_RX = np.empty((len(pixels_RHW3), num_colours), np.float32)
    for start in range(0, len(pixels_RHW3), _TOGETHER):
        level = pixels_RHW3[start : start + _TOGETHER].astype(np.int64) * LEVELS >> 8
        colour = ((level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]).reshape(len(level), -1)
        place = colour + num_colours * np.arange(len(level))[:, None]
        counts = np.bincount(place.ravel(), minlength=num_colours * len(level)).reshape(len(level), num_colours)
        out_RX[start : start + len(level)] = np.sqrt(counts / colour.shape[1])
    return out_RX


def filling_features(model: MlimModel, records: Records, config: EmbedConfig) -> NDArray[np.float32]:
    """The three embeddings and the colour histogram of each record [R, X].

    Of all that was tried on real products without training the encoder, this tells most (docs/filling.md).
    """
    found = embed(model, records, config)
    return np.concatenate([*(found[side] for side in SHOWN), colour_histogram(records.pixels_RHW3)], axis=1)


def num_features(width: int) -> int:
    """How many `filling_features` gives for a model of this width."""
    return len(SHOWN) * width + LEVELS**3
