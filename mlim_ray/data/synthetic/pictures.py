"""Pictures of generated products: a silhouette with colour, pattern and material, in a pose, under noise.

Levels are whole numbers on both sides: a noise-free picture is rounded first and whole-numbered noise is
added after, so that the noise variance is exact, with no rounding or clipping left to reason about. Only
exactly rounded arithmetic is used, so that any slicing of a batch gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.synthetic.attributes import IntArray
from mlim_ray.data.synthetic.counter import Stream, random_bits, uniform

Floats = NDArray[np.float32]

NOISE_STD = 5.0
POSE_DRAWS = 8
LIGHT, DARK = 225.0, 25.0
COLOURS = (
    (190, 35, 35),
    (205, 110, 30),
    (200, 185, 35),
    (35, 135, 50),
    (35, 70, 200),
    (115, 35, 150),
    (215, 90, 165),
    (85, 85, 85),
)
"""Red, green and blue levels of the `colour` values, in their order."""


def draw_pictures(index: IntArray, values: Mapping[str, IntArray], seed: int, image_size: int) -> NDArray[np.uint8]:
    """The picture of each record, uint8 [n, image_size, image_size, 3]: noise-free picture plus noise."""
    pose = draw_pose(index, seed)
    return noise_free_pictures(values, pose, image_size) + draw_noise(index, seed, image_size)


def draw_pose(index: IntArray, seed: int, stream: Stream = Stream.POSE) -> Floats:
    """Everything but noise that is drawn anew for each listing, float32 [n, POSE_DRAWS], uniform in [0, 1).

    Columns: shift right, shift down, scale, flip, background brightness, its tint in red, green and blue.
    """
    return uniform(random_bits(seed, stream, index, POSE_DRAWS)).astype(np.float32)


def noise_free_pictures(values: Mapping[str, IntArray], pose: Floats, image_size: int) -> NDArray[np.uint8]:
    """What a product looks like in a pose, before noise: uint8 [n, image_size, image_size, 3].

    `values` holds the value numbers of the shown attributes, int64 [n] each; `pose` is from `draw_pose`.
    Levels lie in DARK..LIGHT, further from 0 and 255 than the largest noise.
    """
    u, v, scale = _product_coordinates(pose, image_size)
    alpha = np.empty_like(u)
    for number, silhouette in enumerate((_shirt, _trousers, _dress, _bowl, _frame, _scarf, _belt, _clock)):
        rows = values["category"] == number
        edge = (scale[rows] * np.float32(image_size / 2))[:, None, None]
        alpha[rows] = np.clip(np.float32(0.5) + silhouette(u[rows], v[rows]) * edge, 0, 1)
    gloss = np.where(
        (values["material"] == 1)[:, None, None],
        np.float32(0.7) * np.clip(np.float32(0.5) - np.float32(0.4) * (u + v), 0, 1),
        np.float32(0),
    )
    ink = np.float32(0.75) * _patterns(image_size)[values["pattern"]]
    light = np.float32(1) - (np.float32(1) - gloss) * (
        np.float32(1) - np.float32(0.8) * _flecks(image_size)[(values["material"] == 2).astype(np.int64)]
    )

    # A level is colour * share + background * (1 - alpha) + a grey that all channels share.
    share = alpha * (np.float32(1) - light) * (np.float32(1) - ink)
    grey = alpha * (light * np.float32(LIGHT) + (np.float32(1) - light) * ink * np.float32(DARK))
    colour = np.asarray(COLOURS, dtype=np.float32)[values["colour"]]
    tint = np.float32(190) + np.float32(25) * pose[:, 4:5] + np.float32(20) * (pose[:, 5:8] - np.float32(0.5))
    rest = np.float32(1) - alpha
    pictures = np.empty((*u.shape, 3), dtype=np.uint8)
    for channel in range(3):
        level = share * colour[:, channel, None, None] + rest * tint[:, channel, None, None] + grey
        pictures[..., channel] = np.rint(level)
    return pictures


def draw_noise(index: IntArray, seed: int, image_size: int) -> NDArray[np.uint8]:
    """Independent noise for every level, uint8 [n, image_size, image_size, 3], negative values modulo 256."""
    num_levels = image_size * image_size * 3
    bits = random_bits(seed, Stream.NOISE, index, -(-num_levels // 4))
    choices = bits.astype("<u8", copy=False).view("<u2")[:, :num_levels]
    noise: NDArray[np.uint8] = noise_table()[choices].view(np.uint8)
    return noise.reshape(len(index), image_size, image_size, 3)


@lru_cache(maxsize=1)
def noise_table() -> NDArray[np.int8]:
    """The 65,536 equally probable noise levels, int8: a normal law of NOISE_STD, rounded, symmetric."""
    normal = NormalDist(0.0, NOISE_STD)
    upper = [round(normal.inv_cdf((rank + 0.5) / 65536)) for rank in range(32768, 65536)]
    return np.array([*(-level for level in reversed(upper)), *upper], dtype=np.int8)


def noise_variance() -> float:
    """Exact variance of the noise of one channel, in units of [0, 1] pixel values squared."""
    return float(np.mean(noise_table().astype(np.float64) ** 2)) / 255**2


def _product_coordinates(pose: Floats, image_size: int) -> tuple[Floats, Floats, Floats]:
    """Right and down coordinates of each pixel on the product, float32 [n, size, size], and scale [n].

    The product lies within -1..1 and fills nine tenths of the picture, more or less.
    """
    centre = _pixel_centres(image_size)
    scale = np.float32(0.84) + np.float32(0.1) * pose[:, 2]
    shift = np.float32(0.14) * (pose[:, :2] - np.float32(0.5))
    direction = np.where(pose[:, 3] < 0.5, np.float32(1), np.float32(-1))
    across = (centre[None, :] - shift[:, :1]) * (direction / scale)[:, None]
    down = (centre[None, :] - shift[:, 1:]) / scale[:, None]
    shape = (len(pose), image_size, image_size)
    u = np.ascontiguousarray(np.broadcast_to(across[:, None, :], shape))
    v = np.ascontiguousarray(np.broadcast_to(down[:, :, None], shape))
    return u, v, scale


def _pixel_centres(image_size: int) -> Floats:
    return (np.arange(image_size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / image_size) - np.float32(1)


@lru_cache(maxsize=4)
def _patterns(image_size: int) -> Floats:
    """Where each `pattern` value is inked, 0 or 1, float32 [num_values, size, size].

    Patterns and flecks stay where they are while the silhouette moves, and repeat with each of 4 x 4 cells:
    a cell looks the same wherever it lies, which a small model learns quickly.
    """
    turns = _pixel_centres(image_size) * np.float32(2)
    phase = turns - np.floor(turns)
    band = phase < 0.5
    distance = (phase - np.float32(0.5)) ** 2
    inked = (
        np.zeros((image_size, image_size), dtype=bool),
        np.broadcast_to(band[:, None], (image_size, image_size)),
        distance[:, None] + distance[None, :] < np.float32(0.1),
        band[:, None] ^ band[None, :],
    )
    return np.stack(inked).astype(np.float32)


@lru_cache(maxsize=4)
def _flecks(image_size: int) -> Floats:
    """Where a cloth without and one with flecks is flecked, 0 or 1, float32 [2, size, size]."""
    turns = _pixel_centres(image_size) * np.float32(2)
    eighth = np.floor((turns - np.floor(turns)) * np.float32(8)).astype(np.int64)
    tile = np.zeros((8, 8), dtype=np.float32)
    for row, column in ((0, 1), (1, 5), (3, 3), (4, 7), (5, 0), (6, 4)):
        tile[row : row + 2, column : column + 1] = 1
    return np.stack([np.zeros((image_size, image_size), dtype=np.float32), tile[np.ix_(eighth, eighth)]])


def _box(u: Floats, v: Floats, right: float, down: float, half_width: float, half_height: float) -> Floats:
    across = np.float32(half_width) - np.abs(u - np.float32(right))
    along = np.float32(half_height) - np.abs(v - np.float32(down))
    field: Floats = np.minimum(across, along)
    return field


def _radius(u: Floats, v: Floats, right: float, down: float) -> Floats:
    across, along = u - np.float32(right), v - np.float32(down)
    radius: Floats = np.sqrt(across * across + along * along)
    return radius


def _shirt(u: Floats, v: Floats) -> Floats:
    field: Floats = np.maximum(_box(u, v, 0.0, -0.6, 1.0, 0.3), _box(u, v, 0.0, 0.0, 0.48, 0.9))
    return field


def _trousers(u: Floats, v: Floats) -> Floats:
    legs = np.minimum(_box(u, v, 0.0, 0.0, 0.72, 0.95), np.abs(u) - np.float32(0.22))
    field: Floats = np.maximum(_box(u, v, 0.0, -0.72, 0.72, 0.23), legs)
    return field


def _dress(u: Floats, v: Floats) -> Floats:
    flare = np.float32(0.12) + np.float32(0.46) * (v + np.float32(0.95)) - np.abs(u)
    field: Floats = np.minimum(flare, np.float32(0.95) - np.abs(v))
    return field


def _bowl(u: Floats, v: Floats) -> Floats:
    field: Floats = np.minimum(np.float32(1.0) - _radius(u, v, 0.0, -0.2), v + np.float32(0.1))
    return field


def _frame(u: Floats, v: Floats) -> Floats:
    reach = np.maximum(np.abs(u), np.abs(v))
    field: Floats = np.minimum(np.float32(0.95) - reach, reach - np.float32(0.5))
    return field


def _scarf(u: Floats, v: Floats) -> Floats:
    return _box(u, v, 0.0, 0.0, 0.42, 1.0)


def _belt(u: Floats, v: Floats) -> Floats:
    return _box(u, v, 0.0, 0.0, 1.0, 0.42)


def _clock(u: Floats, v: Floats) -> Floats:
    return np.float32(0.92) - _radius(u, v, 0.0, 0.0)
