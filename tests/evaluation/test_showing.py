"""What a model is told of a side that it is not shown: nothing, not even how long the text is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.evaluation.showing import Shown, encode_pooled, shown_batch
from tests.builders import MAX_TOKENS, NUM_CELLS, make_model, make_records


def pooled(records: object, shown: Shown | np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return encode_pooled(make_model().eval(), records, shown).numpy()


def test_a_picture_alone_is_encoded_the_same_with_any_title() -> None:
    records, others = make_records(30, seed=1), make_records(30, seed=2)
    assert (records.num_tokens_R != others.num_tokens_R).any()
    swapped = records._replace(
        token_ids_RT=others.token_ids_RT,
        word_of_token_RT=others.word_of_token_RT,
        num_tokens_R=others.num_tokens_R,
    )
    np.testing.assert_allclose(pooled(records, "image"), pooled(swapped, "image"), atol=1e-6)
    assert not np.allclose(pooled(records, "both"), pooled(swapped, "both"), atol=1e-3)


def test_a_text_alone_is_encoded_the_same_with_any_picture() -> None:
    records, others = make_records(30, seed=1), make_records(30, seed=2)
    swapped = records._replace(pixels_RHW3=others.pixels_RHW3)
    np.testing.assert_allclose(pooled(records, "text"), pooled(swapped, "text"), atol=1e-6)
    assert not np.allclose(pooled(records, "both"), pooled(swapped, "both"), atol=1e-3)


def test_each_record_is_shown_the_side_that_it_is_named_for() -> None:
    records = make_records(6, seed=1)
    sides = np.array(["image", "text", "both"] * 2)
    mixed = pooled(records, sides)
    for row, side in enumerate(sides):
        np.testing.assert_allclose(mixed[row], pooled(records.take(slice(row, row + 1)), side)[0], atol=1e-5)


@pytest.mark.parametrize("shown", ["image", "text", "both"])
def test_the_records_themselves_stay_as_they_are(shown: Shown) -> None:
    records, same = make_records(12, seed=1), make_records(12, seed=1)
    batch = shown_batch(records, shown, NUM_CELLS)
    for array, before in zip(records, same, strict=True):
        assert np.array_equal(array, before)
    assert batch.token_ids_BT.shape == (12, MAX_TOKENS) and batch.num_tokens_B.max() <= MAX_TOKENS
