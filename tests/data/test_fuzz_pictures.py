"""Damaged pictures of every format: a picture or a reason, never anything else."""

import os
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.images import ImageRules, decode_image
from mlim_ray.data.rejection import Problem, Reason
from tests.data.fuzzing import damaged, with_right_checksums
from tests.data.hostile import hostile_records
from tests.data.pictures import encoded, noise, png_of, turned

RULES = ImageRules(size=16)
GOOD = [
    *(encoded(noise(), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")),
    *(encoded(noise(), "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")),
    encoded(noise(), "JPEG", progressive=True),
    encoded(noise(), "WEBP", lossless=True),
    encoded(noise().convert("RGBA"), "WEBP"),
    encoded(noise().convert("CMYK"), "JPEG"),
    encoded(noise().convert("P"), transparency=3),
    png_of(np.arange(600).reshape(20, 30, 1) * 100, 0, 16),
    turned(6, noise()),
    *(
        picture
        for hostile in hostile_records().values()
        if isinstance(picture := hostile.change.get("image"), bytes) and 0 < len(picture) < 20_000
    ),
]
# How many damaged pictures the slow test tries: MLIM_FUZZ=1000000 is a night's work.
NUM_SLOW = int(os.environ.get("MLIM_FUZZ", "20000"))


def check(seed: int) -> None:
    """One damaged picture ends as pixels or as a reason that a decoder may give."""
    rng = random.Random(seed)
    picture = damaged(GOOD, rng)
    if picture.startswith(b"\x89PNG") and rng.random() < 0.7:
        picture = with_right_checksums(picture)
    result = decode_image(picture, RULES)
    if isinstance(result, Problem):
        assert result.reason not in (Reason.OUT_OF_MEMORY, Reason.WRONG_TYPE) and result.detail
    else:
        assert result.shape == (16, 16, 3) and result.dtype == np.uint8


@given(st.integers(0, 2**64))
def test_damaged_pictures_end_as_pixels_or_a_reason(seed: int) -> None:
    check(seed)


@given(st.binary(max_size=60), st.sampled_from([b"", *{picture[:40] for picture in GOOD[:11]}]))
def test_any_bytes_end_as_pixels_or_a_reason(data: bytes, start: bytes) -> None:
    result = decode_image(start + data, RULES)
    assert isinstance(result, Problem) or result.shape == (16, 16, 3)


@pytest.mark.slow
def test_many_damaged_pictures() -> None:
    for seed in range(NUM_SLOW):
        check(seed)
