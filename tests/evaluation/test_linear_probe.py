"""The linear probe and its baselines, on labels that the picture shows, the title names, or nothing tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlim_ray.data.records import Records
from mlim_ray.evaluation.encode import image_features
from mlim_ray.evaluation.held_out import LabelledRecords
from mlim_ray.evaluation.linear_probe import baselines, linear_probe
from tests.builders import (
    FIRST_PIECE,
    IMAGE_SIZE,
    MAX_TOKENS,
    VOCAB_SIZE,
    make_model,
    make_records,
    word_rows,
)

NUM_TRAIN, NUM_HELD_OUT = 160, 80


def with_two_words(num_records: int, seed: int) -> Records:
    """Records whose titles all have two words of one piece."""
    records = make_records(num_records, seed)
    words = word_rows([[1, 1]] * num_records, MAX_TOKENS)
    pieces = np.random.default_rng(seed).integers(FIRST_PIECE, VOCAB_SIZE, words.shape)
    ids = np.where(words >= 0, pieces, 0).astype(np.int32)
    ids[:, 0], ids[:, 3] = 2, 3
    return records._replace(word_of_token_RT=words, token_ids_RT=ids, num_tokens_R=np.full(num_records, 4, np.int16))


def split(records: Records, labels: np.ndarray) -> tuple[LabelledRecords, LabelledRecords]:
    parts = (slice(0, NUM_TRAIN), slice(NUM_TRAIN, None))
    train, held_out = (LabelledRecords(records.take(part), labels[part].astype(str)) for part in parts)
    return train, held_out


def labels_and_records(shown_by: str) -> tuple[LabelledRecords, LabelledRecords]:
    records = with_two_words(NUM_TRAIN + NUM_HELD_OUT, seed=5)
    labels = np.random.default_rng(9).integers(0, 2, NUM_TRAIN + NUM_HELD_OUT)
    if shown_by == "picture":
        pixels = records.pixels_RHW3 // 4
        pixels[labels == 1, :, :, 0] += 150
        records = records._replace(pixels_RHW3=pixels)
    if shown_by == "title":
        ids = records.token_ids_RT.copy()
        ids[:, 1] = np.where(labels == 1, FIRST_PIECE, FIRST_PIECE + 1)
        records = records._replace(token_ids_RT=ids)
    return split(records, labels)


def test_a_label_that_the_picture_shows_is_found() -> None:
    train, held_out = labels_and_records("picture")
    rows = baselines(make_model(), train, held_out, VOCAB_SIZE)
    assert list(rows) == ["majority", "raw_pixels", "pca", "untrained", "untrained_with_title", "text_only"]
    assert min(rows["raw_pixels"], rows["pca"], rows["untrained"]) > 0.97
    assert rows["text_only"] < 0.7
    found = linear_probe(make_model(), train, held_out)
    assert found.picture_only == rows["untrained"] and found.with_title == rows["untrained_with_title"]


def test_a_label_that_the_title_names_is_found_with_the_title_alone() -> None:
    train, held_out = labels_and_records("title")
    model = make_model()
    with torch.no_grad():
        # Untrained attention is so weak that the words hardly reach the cells.
        for parameter in model.parameters():
            parameter.mul_(6.0 if parameter.ndim > 1 else 1.0)
    rows = baselines(model, train, held_out, VOCAB_SIZE)
    assert rows["text_only"] > 0.95
    assert max(rows["raw_pixels"], rows["pca"], rows["untrained"]) < 0.7
    assert rows["untrained_with_title"] > 0.9


def test_majority_guesses_the_commonest_training_label() -> None:
    records = with_two_words(NUM_TRAIN + NUM_HELD_OUT, seed=5)
    labels = np.array(["a"] * 100 + ["b"] * 60 + ["a"] * 20 + ["b"] * 50 + ["unseen"] * 10)
    rows = baselines(make_model(), *split(records, labels), VOCAB_SIZE)
    assert rows["majority"] == 20 / 80


def test_a_single_training_label_is_no_error() -> None:
    train = LabelledRecords(with_two_words(20, seed=5), np.array(["a"] * 20))
    held_out = LabelledRecords(with_two_words(10, seed=6), np.array(["a", "b"] * 5))
    rows = baselines(make_model(), train, held_out, VOCAB_SIZE)
    assert set(rows.values()) == {0.5}


def test_features_are_the_mean_states_of_the_cells() -> None:
    records, model = with_two_words(300, seed=1), make_model(dropout_ratio=0.5).train()
    features = image_features(model, records, with_title=True)
    assert model.training and features.shape == (300, 32)
    hidden = np.zeros((300, 16), bool)
    with torch.inference_mode():
        states = model.eval().encode(
            torch.from_numpy(records.pixels_RHW3 / 255.0).float().permute(0, 3, 1, 2),
            torch.from_numpy(records.token_ids_RT[:, :4]).long(),
            torch.ones(300, 4, dtype=torch.bool),
            torch.from_numpy(hidden),
            torch.zeros(300, 4, dtype=torch.bool),
        )
    np.testing.assert_allclose(features, states.cells_BND.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_title", [True, False])
def test_a_hidden_title_says_nothing(with_title: bool) -> None:
    records = with_two_words(20, seed=1)
    other = records._replace(token_ids_RT=with_two_words(20, seed=2).token_ids_RT)
    one, two = (image_features(make_model(), r, with_title=with_title) for r in (records, other))
    assert np.array_equal(one, two) == (not with_title)


def test_large_pictures_are_compared_at_32_pixels() -> None:
    train, held_out = (
        LabelledRecords(
            part.records._replace(pixels_RHW3=part.records.pixels_RHW3.repeat(3, 1).repeat(3, 2)).take(slice(40)),
            part.labels[:40],
        )
        for part in labels_and_records("picture")
    )
    model = make_model(image_size=3 * IMAGE_SIZE)
    assert baselines(model, train, held_out, VOCAB_SIZE)["raw_pixels"] > 0.95
