import numpy as np
import pytest
import torch

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.evaluation.embedding import embed
from mlim_ray.evaluation.filling_features import LEVELS, colour_histogram, filling_features, num_features
from mlim_ray.evaluation.macro_f1 import macro_f1
from mlim_ray.evaluation.showing import SHOWN, encode_pooled
from tests.builders import MAX_TOKENS, make_model, make_records

TOLERANCE = 1e-5


def test_embeddings_are_the_pooled_states_of_the_plain_model_whatever_they_are_batched_with() -> None:
    model, records = make_model().eval(), make_records(11)
    alone = {
        shown: torch.cat([encode_pooled(model, records.take(slice(i, i + 1)), shown) for i in range(11)])
        .detach()
        .numpy()
        for shown in SHOWN
    }
    for batch_size in (1, 4, 256):
        found = embed(model, records, EmbedConfig(batch_size=batch_size))
        assert tuple(found) == SHOWN
        for shown in SHOWN:
            np.testing.assert_allclose(found[shown], alone[shown], atol=TOLERANCE)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(alone[SHOWN[one]] - alone[SHOWN[other]]).max() > 100 * TOLERANCE


def test_padding_moves_no_embedding() -> None:
    model, records = make_model().eval(), make_records(30)
    records = records.take(np.flatnonzero(records.num_tokens_R < MAX_TOKENS - 1))
    width = MAX_TOKENS - 1
    assert 5 < len(records.key_hash_R) < 30
    cut = records._replace(
        token_ids_RT=records.token_ids_RT[:, :width], word_of_token_RT=records.word_of_token_RT[:, :width]
    )
    noisy = records.token_ids_RT.copy()
    noisy[np.arange(MAX_TOKENS) >= records.num_tokens_R[:, None]] = 17
    for other in (cut, records._replace(token_ids_RT=noisy)):
        for shown, expected in embed(model, records, EmbedConfig(), shown=("text", "both")).items():
            np.testing.assert_allclose(embed(model, other, EmbedConfig())[shown], expected, atol=TOLERANCE)


def test_normalised_embeddings_point_the_same_way_with_length_one() -> None:
    model, records = make_model().eval(), make_records(6)
    plain, short = (embed(model, records, EmbedConfig(normalise=normalise)) for normalise in (False, True))
    for shown in SHOWN:
        lengths = np.linalg.norm(plain[shown], axis=1, keepdims=True)
        np.testing.assert_allclose(short[shown], plain[shown] / lengths, atol=TOLERANCE)


def test_a_model_is_left_as_it_was() -> None:
    model, records = make_model().eval(), make_records(3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    embed(model, records, EmbedConfig(precision="bfloat16"))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_no_records_have_no_embeddings() -> None:
    model = make_model().eval()
    found = embed(model, make_records(1).take(slice(0, 0)), EmbedConfig())
    assert {each.shape for each in found.values()} == {(0, model.config.hidden_size)}


def test_a_colour_histogram_counts_every_pixel_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    found = colour_histogram(pixels)
    for picture, shares in zip(pixels, found, strict=True):
        expected, _ = np.histogramdd(picture.reshape(-1, 3), LEVELS, [(0, 256)] * 3)
        np.testing.assert_allclose(shares**2, expected.ravel() / 64, atol=1e-6)


def test_filling_features_end_with_the_colours() -> None:
    model, records = make_model().eval(), make_records(4)
    found = filling_features(model, records, EmbedConfig())
    assert found.shape == (4, num_features(model.config.hidden_size))
    np.testing.assert_array_equal(found[:, -(LEVELS**3) :], colour_histogram(records.pixels_RHW3))


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(seed)
    true, told = rng.integers(0, 6, 40) // 2 * 2, rng.integers(0, 7, 40)
    expected = f1_score(true, told, labels=np.unique(true), average="macro", zero_division=0.0)
    assert np.isclose(macro_f1(true, told), expected)
