"""Examples to look at: bounded in number, and pictures exactly as stored or safely decoded."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, RawRecord, clean
from mlim_ray.data.images import ImageRules, decode_image, decode_stored
from mlim_ray.data.inspection.examples import (
    THUMBNAIL_SIDE,
    EvenlySpaced,
    Thumbnail,
    accepted_example,
    rejected_example,
)
from mlim_ray.data.sources import resolve_prepare_config
from tests.data.inspection.bad_pictures import BAD
from tests.data.pictures import encoded, noise


def rules(image_size: int, **knobs: object) -> CleaningRules:
    return CleaningRules.of(resolve_prepare_config(PrepareConfig.model_validate(knobs), image_size), False)


def pixels_of(thumbnail: Thumbnail | None) -> np.ndarray:
    assert thumbnail is not None
    image = Image.open(io.BytesIO(thumbnail.content))
    assert image.format == thumbnail.kind.upper()
    return np.asarray(image.convert("RGB"))


def record(image: bytes | None, text: str = "a text") -> RawRecord:
    return RawRecord("a.parquet", 7, "key", image, text)


@given(num_items=st.integers(0, 3_000), limit=st.integers(1, 70))
def test_the_kept_items_are_evenly_spaced(num_items: int, limit: int) -> None:
    kept: EvenlySpaced[int] = EvenlySpaced(limit)
    num_made = 0

    def make(value: int) -> int:
        nonlocal num_made
        num_made += 1
        return value

    for item in range(num_items):
        kept.offer(lambda item=item: make(item))
    items = kept.items()
    assert items == sorted(set(items)) and len(items) == min(num_items, limit)
    # What is made and thrown away again grows with the logarithm only.
    assert num_made <= 2 * limit + limit * max(0, num_items // limit).bit_length()
    if num_items:
        gaps = [b - a for a, b in pairwise([*items, num_items])]
        assert items[0] == 0 and max(gaps) <= 4 * num_items / len(items) + 1


def test_no_item_is_made_where_none_is_kept() -> None:
    kept: EvenlySpaced[int] = EvenlySpaced(0)
    kept.offer(lambda: pytest.fail("made"))
    assert kept.items() == []


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_a_small_accepted_picture_is_shown_pixel_by_pixel(fit: str) -> None:
    found = rules(32, fit=fit)
    picture = encoded(noise(40, 30))
    (accepted,) = clean([record(picture)], found).accepted
    shown = accepted_example(accepted, found, "PNG RGB")
    assert np.array_equal(pixels_of(shown.thumbnail), decode_image(picture, found.image))
    assert (shown.key, shown.text, shown.reason, shown.row) == ("key", "a text", None, 7)


def test_a_large_accepted_picture_is_shown_as_stored_but_smaller() -> None:
    found = rules(224)
    gradient = Image.linear_gradient("L").convert("RGB")
    (accepted,) = clean([record(encoded(gradient))], found).accepted
    shown = pixels_of(accepted_example(accepted, found, "").thumbnail)
    stored = decode_stored(accepted.image, 224, "jpeg")
    assert shown.shape == (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    smaller = np.asarray(Image.fromarray(stored).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE)))
    assert np.abs(shown.astype(int) - smaller).max() < 12


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_shown_only_where_it_can_be_decoded(name: str) -> None:
    image, reason = BAD[name]
    found = rules(32)
    raw = record(image)
    (rejected,) = clean([raw], found).rejected
    shown = rejected_example(raw, rejected, found, "")
    assert (shown.reason, shown.key) == (reason, "key") and shown.detail
    assert (shown.thumbnail is not None) == (reason == "too_small")


def test_a_tiny_rejected_picture_keeps_its_pixels() -> None:
    found = rules(32)
    raw = record(encoded(noise(6, 4)))
    (rejected,) = clean([raw], found).rejected
    shown = pixels_of(rejected_example(raw, rejected, found, "").thumbnail)
    assert shown.shape == (6, 6, 3) and np.array_equal(shown[1:5], np.asarray(noise(6, 4)))


def test_a_sound_picture_of_a_rejected_record_is_whole() -> None:
    found = rules(32, fit="crop")
    raw = record(encoded(noise(200, 100)), text=" ")
    (rejected,) = clean([raw], found).rejected
    shown = pixels_of(rejected_example(raw, rejected, found, "").thumbnail)
    whole = decode_image(encoded(noise(200, 100)), ImageRules(THUMBNAIL_SIDE, "letterbox"))
    assert isinstance(whole, np.ndarray) and shown.shape == whole.shape
    assert (shown[:20] > 240).all() and shown[40:80].std() > 20


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\ud800 broken", b"caf\xe9 \x00" * 100_000, None])
def test_hostile_texts_and_keys_are_short_and_printable(text: str | bytes | None) -> None:
    found = rules(32)
    raw = RawRecord("a", 0, "k" * 100_000, b"", text)
    (rejected,) = clean([raw], found).rejected
    shown = rejected_example(raw, rejected, found, "")
    assert shown.key is not None and len(shown.key) <= 80 and len(shown.text) <= 160
    assert shown.text.isprintable() and shown.text.encode() is not None
