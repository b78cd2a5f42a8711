"""The classifier of pairs: what it may see, and that it learns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.config.pairs import Encoding, PairsConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.pair_classifier import PairClassifier, score_pairs, train_classifier
from mlim_ray.evaluation.pair_making import Pairs
from mlim_ray.model import MlimModel
from tests.builders import make_model, make_records

ENCODINGS: tuple[Encoding, ...] = ("siamese", "cross")


def make_classifier(encoding: Encoding) -> PairClassifier:
    torch.manual_seed(0)
    classifier = PairClassifier(make_model(), encoding).eval()
    for parameter in classifier.parameters():
        # Far enough from the start for every input to matter.
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    return classifier


@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.inference_mode()
def test_a_pair_is_scored_the_same_alone_and_among_others(encoding: Encoding) -> None:
    classifier, records = make_classifier(encoding), make_records(20)
    together = classifier(records, "both")
    alone = torch.cat([classifier(records.take(slice(row, row + 2)), "both") for row in range(0, 20, 2)])
    assert together.std() > 0.1
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.inference_mode()
def test_a_missing_side_changes_nothing(encoding: Encoding) -> None:
    classifier, records, other = make_classifier(encoding), make_records(20), make_records(20, seed=1)
    other_picture = records._replace(pixels_RHW3=other.pixels_RHW3)
    other_ids = np.where(records.word_of_token_RT >= 0, 39 - records.token_ids_RT % 30, records.token_ids_RT)
    other_text = records._replace(token_ids_RT=other_ids.astype(np.int32))
    for shown, same, different in (("image", other_text, other_picture), ("text", other_picture, other_text)):
        expected = classifier(records, shown)
        torch.testing.assert_close(classifier(same, shown), expected, rtol=0, atol=0)
        assert (classifier(different, shown) - expected).abs().max() > 1e-2


@torch.inference_mode()
def test_siamese_is_symmetric_and_cross_lets_each_listing_see_the_other() -> None:
    records = make_records(2)
    swapped = records.take(np.array([1, 0]))
    siamese, cross = make_classifier("siamese"), make_classifier("cross")
    torch.testing.assert_close(siamese(records, "both"), siamese(swapped, "both"))
    assert (cross(records, "both") - cross(swapped, "both")).abs() > 1e-4
    other = records._replace(pixels_RHW3=np.stack([records.pixels_RHW3[0], 255 - records.pixels_RHW3[1]]))
    assert cross.sides is not None
    one, same = (cross._encode_together(cross.sides, of, "both")[0] for of in (records, other))
    assert (one - same).abs().max() > 1e-3


@torch.inference_mode()
def test_cross_is_plain_attention_over_both_listings() -> None:
    """Against the encoder on one long sequence without padding, made by hand."""
    classifier = make_classifier("cross")
    assert classifier.sides is not None
    records = next(
        part
        for row in range(0, 40, 2)
        if (part := make_records(40).take(slice(row, row + 2))).num_tokens_R.tolist()
        in ([4, 5], [5, 4], [5, 6], [6, 5])
    )
    model = classifier.encoder
    rows, cells, tokens = [], [], []
    for place in (0, 1):
        count = int(records.num_tokens_R[place])
        pixels = torch.from_numpy(records.pixels_RHW3[place : place + 1]).permute(0, 3, 1, 2).float() / 255
        cell_states = model.image_embedder(pixels, torch.arange(16)) + model.cell_positions
        ids = torch.from_numpy(records.token_ids_RT[place, :count].astype(np.int64))
        token_states = model.word_embeddings(ids) + model.token_positions[:count]
        rows.append(model.embedding_norm(torch.cat([cell_states, token_states]) + classifier.sides.weight[place]))
        cells.append(slice(sum(map(len, rows[:-1])), sum(map(len, rows[:-1])) + 16))
        tokens.append(slice(cells[-1].stop, cells[-1].stop + count))
    x_SD = torch.cat(rows)
    for layer in model.encoder.layers:
        attention = layer.attention
        normed = layer.attention_norm(x_SD)
        query, key, value = attention.query_key_value(normed).chunk(3, -1)
        heads = []
        for q, k, v in zip(query.chunk(2, -1), key.chunk(2, -1), value.chunk(2, -1), strict=True):
            heads.append(torch.softmax(q @ k.T / q.shape[1] ** 0.5, -1) @ v)
        x_SD = x_SD + attention.output(torch.cat(heads, -1))
        x_SD = x_SD + layer.feed_forward(layer.feed_forward_norm(x_SD))
    x_SD = model.encoder.final_norm(x_SD)
    first, second = ((x_SD[c].mean(0) + x_SD[t].mean(0)) / 2 for c, t in zip(cells, tokens, strict=True))
    expected = classifier.head(torch.cat([(first - second).abs(), first * second]))
    torch.testing.assert_close(classifier(records, "both"), expected, rtol=1e-4, atol=1e-4)


def twins(num_products: int) -> tuple[Records, Pairs]:
    """Two listings of each product, whose pictures are nearly equal; the titles tell nothing."""
    records = make_records(2 * num_products)
    pixels = records.pixels_RHW3.copy()
    noise = np.random.default_rng(0).integers(0, 20, pixels[1::2].shape)
    pixels[1::2] = np.clip(pixels[::2].astype(int) + noise, 0, 255)
    first = np.arange(0, 2 * num_products, 2)
    other = np.roll(first, -2) + 1
    pairs = Pairs(
        np.repeat(first, 2),
        np.stack([first + 1, other], 1).flatten(),
        np.tile([True, False], num_products),
        np.repeat(np.arange(num_products), 2),
    )
    return records._replace(pixels_RHW3=pixels), pairs


def trained(encoder: MlimModel, encoding: Encoding, *, epochs: float = 1.0, dropout: bool = False) -> PairClassifier:
    records, pairs = twins(60)
    fine = FineTuneConfig(num_epochs=epochs, batch_size=20, learning_rate=3e-3)
    config = PairsConfig(fine_tune=fine)
    return train_classifier(encoder, encoding, records, pairs, config, 5, modality_dropout=dropout)


def test_siamese_learns_what_pictures_tell_and_not_what_titles_do_not() -> None:
    classifier = trained(make_model(), "siamese", epochs=25.0)
    records, pairs = twins(150)
    records, pairs = records.take(slice(120, 300)), Pairs(*(column[120:] for column in pairs))
    pairs = pairs._replace(first_P=pairs.first_P - 120, second_P=(pairs.second_P - 120) % 180)
    with_picture = average_precision_score(pairs.is_same_P, score_pairs(classifier, records, pairs, "both"))
    without = average_precision_score(pairs.is_same_P, score_pairs(classifier, records, pairs, "text"))
    assert with_picture > 0.9 and without < 0.7


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_fine_tuning_is_seeded_and_leaves_the_encoder_as_it_was(encoding: Encoding) -> None:
    encoder = make_model()
    before = copy.deepcopy(encoder.state_dict())
    plain, again, dropped = (trained(encoder, encoding, dropout=dropout) for dropout in (False, False, True))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert any(not torch.equal(value, dropped.state_dict()[name]) for name, value in plain.state_dict().items())
    assert not torch.equal(plain.encoder.word_embeddings.weight, before["word_embeddings.weight"])


def test_scores_of_cross_do_not_depend_on_the_order_of_a_pair() -> None:
    classifier = make_classifier("cross")
    records, pairs = twins(10)
    swapped = pairs._replace(first_P=pairs.second_P, second_P=pairs.first_P)
    scores = score_pairs(classifier, records, pairs, "both")
    np.testing.assert_allclose(scores, score_pairs(classifier, records, swapped, "both"), rtol=1e-5)
    assert scores.shape == (20,) and scores.std() > 0
