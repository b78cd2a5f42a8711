"""The limits: an oracle that knows the latents meets each, and no predictor gets below."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge

from mlim_ray.data.synthetic import (
    ATTRIBUTES,
    TEMPLATES,
    generate,
    mlm_limit,
    read_title,
    recon_limit,
    recon_title_limit,
    word_entropies,
)
from mlim_ray.data.synthetic.attributes import draw_attributes, place_records
from mlim_ray.data.synthetic.pictures import draw_pose, noise_free_pictures, noise_table
from mlim_ray.data.synthetic.titles import slot_attribute

SEED, NUM_RECORDS, NUM_TRAIN = 11, 5000, 4400


@dataclass(frozen=True)
class Cards:
    """A catalogue taken apart: rows, titles and pictures in [0, 1]."""

    rows: list[dict[str, str]]
    texts: list[str]
    pictures: np.ndarray


@pytest.fixture(scope="module")
def cards() -> Cards:
    table = generate(0, NUM_RECORDS, num_records=NUM_RECORDS, seed=SEED)
    pictures = [np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_pylist()]
    rows = table.drop_columns(["image"]).rename_columns({"label": "category"}).to_pylist()
    return Cards(rows, [row["text"] for row in rows], np.stack(pictures).astype(np.float32) / np.float32(255))


@pytest.fixture(scope="module")
def held_out(cards: Cards) -> slice:
    """Records of products that no training record shows: the first one starts a group."""
    start = NUM_TRAIN
    while cards.rows[start]["group"] == cards.rows[start - 1]["group"]:
        start += 1
    return slice(start, NUM_RECORDS)


def _hide(texts: list[str], ratio: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    hidden = [rng.random(len(text.split())) < ratio for text in texts]
    return hidden, [np.ones(len(words), dtype=np.int64) for words in hidden]


def _oracle(row: dict[str, str], place: int) -> dict[str, float]:
    """The law of a word for one who knows the template and what the picture shows, from the row's columns."""
    name = slot_attribute(TEMPLATES[read_title(row["text"]).template][place])
    if name is None:
        return {row["text"].split()[place]: 1.0}
    attribute = ATTRIBUTES[name]
    shown = attribute.wordings[attribute.names.index(row[name])]
    words = shown if attribute.is_shown else [word for wordings in attribute.wordings for word in wordings]
    return dict.fromkeys(words, 1 / len(words))


def _mean_loss(rows: list[dict[str, str]], hidden: list[np.ndarray], law: Callable[[dict[str, str], int, str], float]):
    losses = [
        -math.log(law(row, place, row["text"].split()[place]))
        for row, words in zip(rows, hidden, strict=True)
        for place in np.flatnonzero(words)
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("ratio", [0.2, 0.8, 1.0])
def test_mlm_oracle_meets_the_limit(cards: Cards, held_out: slice, ratio: float) -> None:
    hidden, pieces = _hide(cards.texts[held_out], ratio)
    loss = _mean_loss(cards.rows[held_out], hidden, lambda row, place, word: _oracle(row, place)[word])
    assert loss == pytest.approx(mlm_limit(cards.texts[held_out], hidden, pieces), rel=1e-12)


def test_no_fitted_predictor_beats_the_mlm_limit(cards: Cards, held_out: slice) -> None:
    """Counts on the training records, given nothing, the slot, a neighbour or one attribute."""
    contexts: dict[str, Callable[[dict[str, str], int], tuple[object, ...]]] = {
        "nothing": lambda row, place: (),
        "slot": lambda row, place: (read_title(row["text"]).template, place),
        "neighbour": lambda row, place: (row["text"].split()[place - 1], len(row["text"].split()), place),
    }
    for name in ATTRIBUTES:
        contexts[name] = lambda row, place, name=name: (read_title(row["text"]).template, place, row[name])
    hidden, pieces = _hide(cards.texts[held_out], 1.0)
    limit = mlm_limit(cards.texts[held_out], hidden, pieces)
    vocabulary = {word for text in cards.texts for word in text.split()}
    for context in contexts.values():
        counts: dict[tuple[object, ...], Counter[str]] = {}
        for row in cards.rows[: held_out.start]:
            for place, word in enumerate(row["text"].split()):
                counts.setdefault(context(row, place), Counter())[word] += 1

        def law(row: dict[str, str], place: int, word: str, context=context, counts=counts) -> float:
            seen = counts.get(context(row, place), Counter())
            return (seen[word] + 0.01) / (seen.total() + 0.01 * len(vocabulary))

        assert _mean_loss(cards.rows[held_out], hidden, law) > limit + 0.1


def test_what_the_oracle_leaves_open_cannot_be_learned(cards: Cards, held_out: slice) -> None:
    """Brand, size and wording from any other column or the template: never better than uniform."""
    for target in ("brand", "size", "wording"):
        samples = [_open_word(row, target) for row in cards.rows]
        uniform = math.log({"brand": 6, "size": 3, "wording": 2}[target])
        for feature in ("category", "colour", "pattern", "material", "template"):
            counts: dict[object, Counter[object]] = {}
            for row, value in zip(cards.rows[: held_out.start], samples[: held_out.start], strict=True):
                if value is not None:
                    counts.setdefault(_feature(row, feature), Counter())[value] += 1
            losses = []
            for row, value in zip(cards.rows[held_out], samples[held_out], strict=True):
                if value is not None:
                    seen = counts[_feature(row, feature)]
                    losses.append(-math.log((seen[value] + 1) / (seen.total() + math.exp(uniform))))
            assert np.mean(losses) > uniform - 3 * np.std(losses) / math.sqrt(len(losses))


def _feature(row: dict[str, str], feature: str) -> object:
    return read_title(row["text"]).template if feature == "template" else row[feature]


def _open_word(row: dict[str, str], target: str) -> object:
    if target != "wording":
        return row[target]
    wordings = ATTRIBUTES["pattern"].wordings[ATTRIBUTES["pattern"].names.index(row["pattern"])]
    return next((wordings.index(word) for word in row["text"].split() if word in wordings), None)


def test_word_entropies_of_a_title() -> None:
    assert word_entropies("large striped pants by aldery in red") == pytest.approx(
        [math.log(3), math.log(2), math.log(3), 0, math.log(6), 0, 0]
    )
    with pytest.raises(ValueError, match="generated catalogue expected"):
        word_entropies("a photo of a dog")


def test_mlm_limit_is_per_piece() -> None:
    text, hidden = "aldery red striped bowl", np.array([True, False, True, True])
    assert mlm_limit([text], [hidden], [np.array([3, 1, 2, 1])]) == pytest.approx((math.log(6) + math.log(2)) / 6)


def test_the_number_of_pieces_narrows_the_candidates() -> None:
    """Of three sizes the one in two pieces gives itself away; the others leave a guess between two."""
    texts = [f"felt red bowl {size}" for size in ("small", "medium", "large")]
    hidden = [np.array([False, False, False, True])] * 3
    pieces = [np.array([1, 1, 1, count]) for count in (1, 2, 1)]
    assert mlm_limit(texts, hidden, pieces) == pytest.approx((math.log(2) + 0 + math.log(2)) / 4)


@pytest.mark.parametrize(
    ("texts", "hidden", "pieces", "message"),
    [
        (["felt red bowl small"], [], [], "equally many"),
        (["felt red bowl small"], [[True]], [[1, 1, 1, 1]], "one of each per word"),
        (["felt red bowl small"], [[False] * 4], [[1] * 4], "no hidden word"),
        (
            ["felt red bowl small"] * 2,
            [[True] * 4] * 2,
            [[1, 1, 1, 1], [1, 1, 2, 1]],
            "pieces of the word 'bowl'",
        ),
        (["felt red bowl small"], [[True] * 4], [[1, 1, 0, 1]], "pieces of the word 'bowl'"),
    ],
)
def test_inconsistent_mlm_input_is_refused(texts, hidden, pieces, message) -> None:
    with pytest.raises(ValueError, match=message):
        mlm_limit(texts, [np.array(row) for row in hidden], [np.array(row) for row in pieces])


def _noise_free(records: slice) -> np.ndarray:
    index = np.arange(records.start, records.stop, dtype=np.int64)
    values = draw_attributes(place_records(index, SEED)[0], SEED)
    return noise_free_pictures(values, draw_pose(index, SEED), 32).astype(np.float32) / np.float32(255)


def _recon(prediction: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Squared error summed over channels, mean over pixels, of each record."""
    return ((prediction - pictures) ** 2).sum(axis=-1).mean(axis=(1, 2)).astype(np.float64)


@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_recon_oracle_meets_the_limit(cards: Cards, held_out: slice, ratio: float) -> None:
    """Visible cells copied, hidden ones predicted by the noise-free picture; any shift of it is worse."""
    pictures, clean = cards.pictures[held_out], _noise_free(held_out)
    cells = np.stack([np.random.default_rng(row).permutation(16) < 16 * ratio for row in range(len(pictures))])
    hidden = np.kron(cells.reshape(-1, 4, 4), np.ones((8, 8)))[..., None] == 1
    errors = _recon(np.where(hidden, clean, pictures), pictures)
    limit, error = recon_limit(ratio), float(errors.std()) / math.sqrt(len(errors))
    assert errors.mean() == pytest.approx(limit, abs=4 * error)
    assert errors.mean() == pytest.approx(limit, rel=0.01)
    for worse in (clean + 0.01, clean * 0.99, np.roll(clean, 1, axis=1)):
        assert _recon(np.where(hidden, worse, pictures), pictures).mean() > limit + 4 * error


def test_recon_limit_refuses_a_ratio_outside_its_range() -> None:
    for ratio in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="hidden_cell_ratio"):
            recon_limit(ratio)


def _posterior_mean(text: str, rng: np.random.Generator, num_draws: int) -> tuple[np.ndarray, float]:
    """Mean picture of fresh draws given a title, and what their finite number adds to its squared error."""
    values = {name: rng.integers(0, attribute.num_values, num_draws) for name, attribute in ATTRIBUTES.items()}
    for name, value in read_title(text).values.items():
        values[name][:] = value
    draws = noise_free_pictures(values, rng.random((num_draws, 8), dtype=np.float32), 32) / np.float32(255)
    return draws.mean(axis=0), float(draws.var(axis=0, ddof=1).sum(axis=-1).mean()) / num_draws


def test_recon_title_oracle_meets_the_limit_and_nothing_beats_it(cards: Cards, held_out: slice) -> None:
    pictures, texts = cards.pictures[held_out], cards.texts[held_out]
    limit, limit_error = recon_title_limit(texts, num_draws=24, seed=1)
    rng = np.random.default_rng(2)
    oracle = [_posterior_mean(text, rng, 24) for text in texts]
    prediction = np.stack([mean for mean, _ in oracle])
    excess = np.array([extra for _, extra in oracle])
    errors = _recon(prediction, pictures) - excess
    error = math.hypot(errors.std() / math.sqrt(len(errors)), limit_error)
    assert errors.mean() == pytest.approx(limit, abs=4 * error)
    assert error < 0.05 * limit

    train = slice(0, held_out.start)
    features, columns = _bag_of_words(cards.texts)
    targets = cards.pictures[train].reshape(held_out.start, -1)
    ridge = Ridge(alpha=1.0).fit(features[train], targets).predict(features[held_out]).reshape(pictures.shape)
    nearest = np.stack([cards.pictures[row] for row in np.argmax(features[held_out] @ features[train].T, axis=1)])
    mean = np.broadcast_to(cards.pictures[train].mean(axis=0), pictures.shape)
    shuffled = np.roll(prediction, 7, axis=0)
    assert len(columns) > 30
    for cheaper in (ridge, nearest, mean, shuffled):
        assert _recon(cheaper, pictures).mean() > limit + 4 * error


def _bag_of_words(texts: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    columns = {word: column for column, word in enumerate(sorted({word for text in texts for word in text.split()}))}
    features = np.zeros((len(texts), len(columns)), dtype=np.float32)
    for row, text in enumerate(texts):
        features[row, [columns[word] for word in text.split()]] = 1
    return features, columns


def test_recon_title_limit_states_its_error() -> None:
    """Over repeated seeds the estimates scatter as much as the standard error says, around one value."""
    texts = generate(0, 12, num_records=12, image_size=8)["text"].to_pylist()
    estimates = np.array([recon_title_limit(texts, num_draws=8, seed=seed) for seed in range(60)])
    assert estimates[:, 0].std(ddof=1) == pytest.approx(estimates[:, 1].mean(), rel=0.4)
    precise, error = recon_title_limit(texts, num_draws=1000, seed=99)
    assert estimates[:, 0].mean() == pytest.approx(precise, abs=4 * math.hypot(error, estimates[:, 1].mean() / 60**0.5))
    again = recon_title_limit(texts, num_draws=8, seed=0)
    assert again == tuple(estimates[0])


def test_recon_title_limit_is_the_variance_of_noisy_pictures() -> None:
    """Against whole pictures drawn by another generator of random numbers, noise and all."""
    text, num_draws, rng = "red felt plain bowl by aldery", 3000, np.random.default_rng(4)
    values = {name: np.full(num_draws, value) for name, value in read_title(text).values.items()}
    clean = noise_free_pictures(values, rng.random((num_draws, 8), dtype=np.float32), 16)
    pictures = (clean + rng.choice(noise_table(), size=clean.shape)) / 255
    expected = pictures.var(axis=0, ddof=1).sum(axis=-1).mean()
    limit, error = recon_title_limit([text], num_draws=num_draws, seed=0, image_size=16)
    assert limit == pytest.approx(float(expected), abs=4 * math.sqrt(2) * error)
    assert 8 * error < recon_limit(1.0)


def test_a_title_that_names_more_leaves_less_open() -> None:
    whole, error = recon_title_limit(["red felt plain bowl by aldery"], num_draws=200, seed=0)
    less, _ = recon_title_limit(["felt red bowl small"], num_draws=200, seed=0)
    assert recon_limit(1.0) < whole < less - 4 * error


@pytest.mark.parametrize(("texts", "num_draws"), [([], 10), (["felt red bowl small"], 2)])
def test_recon_title_limit_refuses_too_few(texts: list[str], num_draws: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        recon_title_limit(texts, num_draws=num_draws, seed=0)
