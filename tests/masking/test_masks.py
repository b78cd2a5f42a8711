"""What every masking policy promises: whole words, no special tokens, the ratios that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config import AlternatingConfig, BlockwiseConfig, IndependentConfig, MamConfig, TextAttentiveConfig
from mlim_ray.masking import Masks, Ratios, draw_masks, hide, mode_names
from mlim_ray.masking.masks import PolicyConfig
from tests.builders import word_rows

RATIO = st.floats(0.0, 1.0)
HALF = st.floats(0.0, 0.5)
POLICIES = st.one_of(
    st.builds(
        MamConfig,
        image_heavy_probability=HALF,
        text_heavy_probability=HALF,
        image_heavy_ratio=RATIO,
        text_heavy_ratio=RATIO,
        image_heavy_text_ratio=RATIO,
        text_heavy_image_ratio=RATIO,
        image_light_ratio=RATIO,
        text_light_ratio=RATIO,
    ),
    st.builds(
        BlockwiseConfig,
        image_ratio=RATIO,
        text_ratio=RATIO,
        image_only_probability=HALF,
        text_only_probability=HALF,
        smallest_block_ratio=st.floats(0.05, 0.3),
        smallest_aspect=st.floats(0.2, 1.0),
    ),
    st.builds(
        TextAttentiveConfig,
        image_ratio=RATIO,
        text_ratio=RATIO,
        image_only_probability=HALF,
        text_only_probability=HALF,
    ),
    st.builds(IndependentConfig, image_ratio=RATIO, text_ratio=RATIO),
    st.builds(AlternatingConfig, image_heavy_probability=RATIO, image_heavy_ratio=RATIO, text_heavy_ratio=RATIO),
)
TITLES = st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=12)
WIDTH = 22


def ratios_of(policy: PolicyConfig) -> dict[str, tuple[float, float]]:
    """Cell and word ratio of every mode, as the policy's documentation gives them."""
    match policy:
        case MamConfig():
            return {
                "image_heavy": (policy.image_heavy_ratio, policy.image_heavy_text_ratio),
                "text_heavy": (policy.text_heavy_image_ratio, policy.text_heavy_ratio),
                "light": (policy.image_light_ratio, policy.text_light_ratio),
            }
        case BlockwiseConfig() | TextAttentiveConfig():
            return {
                "image_only": (policy.image_ratio, 0.0),
                "text_only": (0.0, policy.text_ratio),
                "both": (policy.image_ratio, policy.text_ratio),
            }
        case IndependentConfig():
            return {"independent": (policy.image_ratio, policy.text_ratio)}
        case AlternatingConfig():
            return {
                "image_heavy": (policy.image_heavy_ratio, 0.0),
                "text_heavy": (0.0, policy.text_heavy_ratio),
            }


def masks_of(
    policy: PolicyConfig,
    keys: np.ndarray,
    words_BT: np.ndarray,
    *,
    seed: int = 0,
    epoch: int = 0,
    num_cells: int = 16,
) -> Masks:
    return draw_masks(
        policy,
        seed=seed,
        epoch_B=np.full(len(keys), epoch),
        key_hash_B=keys,
        num_cells=num_cells,
        word_of_token_BT=words_BT,
    )


def keys(num_records: int) -> np.ndarray:
    return np.arange(num_records, dtype=np.uint64) * np.uint64(2**40 + 1)


def word_hidden(masks: Masks, words_BT: np.ndarray, word: int) -> np.ndarray:
    """Whether the piece(s) of a word are hidden, for records that have it."""
    return (masks.token_hidden_BT & (words_BT == word)).any(1)


@given(POLICIES, TITLES, st.integers(0, 2**62), st.integers(0, 1000))
def test_words_hide_whole_and_as_many_as_the_ratio_says(
    policy: PolicyConfig, titles: list[list[int]], seed: int, epoch: int
) -> None:
    words_BT = word_rows(titles, WIDTH)
    masks = masks_of(policy, keys(len(titles)), words_BT, seed=seed, epoch=epoch)
    assert not (masks.token_hidden_BT & (words_BT < 0)).any()
    for row, pieces in enumerate(titles):
        cell_ratio, word_ratio = ratios_of(policy)[mode_names(policy)[masks.mode_B[row]]]
        hidden = [masks.token_hidden_BT[row, words_BT[row] == word] for word in range(len(pieces))]
        assert all(piece.all() or not piece.any() for piece in hidden)
        assert abs(sum(piece.all() for piece in hidden) - word_ratio * len(pieces)) < 1
        assert abs(masks.cell_hidden_BN[row].sum() - cell_ratio * 16) < 1


@given(POLICIES, TITLES, st.randoms())
def test_a_mask_depends_on_its_own_record_alone(policy: PolicyConfig, titles: list[list[int]], random: object) -> None:
    words_BT = word_rows(titles, WIDTH)
    together = masks_of(policy, keys(len(titles)), words_BT)
    order = np.arange(len(titles))
    random.shuffle(order)
    some = order[: max(1, len(order) // 2)]
    apart = masks_of(policy, keys(len(titles))[some], np.pad(words_BT[some], ((0, 0), (0, 5)), constant_values=-1))
    np.testing.assert_array_equal(apart.mode_B, together.mode_B[some])
    np.testing.assert_array_equal(apart.cell_hidden_BN, together.cell_hidden_BN[some])
    np.testing.assert_array_equal(apart.token_hidden_BT[:, :WIDTH], together.token_hidden_BT[some])
    assert not apart.token_hidden_BT[:, WIDTH:].any()


def test_records_of_one_batch_may_be_of_different_epochs() -> None:
    words_BT = word_rows([[1, 2, 1]] * 20, WIDTH)
    alone = [masks_of(MamConfig(), keys(20), words_BT, epoch=epoch) for epoch in (3, 4)]
    epoch_B = np.repeat([3, 4], 20)
    mixed = draw_masks(
        MamConfig(),
        seed=0,
        epoch_B=epoch_B,
        key_hash_B=np.tile(keys(20), 2),
        num_cells=16,
        word_of_token_BT=np.tile(words_BT, (2, 1)),
    )
    for mixed_array, *arrays in zip(mixed, *alone, strict=True):
        np.testing.assert_array_equal(mixed_array, np.concatenate(arrays))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_draws_independently(other: dict[str, int]) -> None:
    policy, words_BT = MamConfig(), word_rows([[1] * 5] * 6000, WIDTH)
    one, two = masks_of(policy, keys(6000), words_BT), masks_of(policy, keys(6000), words_BT, **other)
    assert np.mean(one.mode_B == two.mode_B) == pytest.approx(1 / 3, abs=0.025)
    both_heavy = (one.mode_B == 0) & (two.mode_B == 0)
    overlap = (one.cell_hidden_BN & two.cell_hidden_BN)[both_heavy].mean()
    assert overlap == pytest.approx(0.8**2, abs=0.02)


@pytest.mark.parametrize(
    ("policy", "probabilities"),
    [
        (MamConfig(), (1 / 3, 1 / 3, 1 / 3)),
        (MamConfig(image_heavy_probability=0.2, text_heavy_probability=0.7), (0.2, 0.7, 0.1)),
        (MamConfig(image_heavy_probability=0.5, text_heavy_probability=0.5), (0.5, 0.5, 0.0)),
        (MamConfig(image_heavy_probability=0.0, text_heavy_probability=0.0), (0.0, 0.0, 1.0)),
        (MamConfig(image_heavy_probability=0.9, text_heavy_probability=0.1), (0.9, 0.1, 0.0)),
        (AlternatingConfig(image_heavy_probability=0.25), (0.25, 0.75)),
        (AlternatingConfig(image_heavy_probability=1.0), (1.0, 0.0)),
        (IndependentConfig(), (1.0,)),
        (BlockwiseConfig(), (0.0, 0.0, 1.0)),
        (TextAttentiveConfig(), (0.5, 0.5, 0.0)),
        (BlockwiseConfig(image_only_probability=0.5, text_only_probability=0.5), (0.5, 0.5, 0.0)),
        (BlockwiseConfig(image_only_probability=0.2, text_only_probability=0.3), (0.2, 0.3, 0.5)),
    ],
)
def test_modes_come_with_their_probability(policy: PolicyConfig, probabilities: tuple[float, ...]) -> None:
    num_records = 20_000
    masks = masks_of(policy, keys(num_records), word_rows([[1]] * num_records, 3))
    shares = np.bincount(masks.mode_B, minlength=len(mode_names(policy))) / num_records
    assert len(shares) == len(probabilities) == len(mode_names(policy))
    for share, probability in zip(shares, probabilities, strict=True):
        assert share == pytest.approx(probability, abs=4 * np.sqrt(probability * (1 - probability) / num_records))


@pytest.mark.parametrize("num_words", [1, 2, 3, 5])
def test_the_expected_share_is_the_ratio_for_any_length(num_words: int) -> None:
    num_records = 12_000
    words_BT = word_rows([[2] * num_words] * num_records, WIDTH)
    policy = MamConfig()
    masks = masks_of(policy, keys(num_records), words_BT, num_cells=9)
    for mode, (cell_ratio, word_ratio) in enumerate(ratios_of(policy).values()):
        chosen = masks.mode_B == mode
        margin = 4 / np.sqrt(chosen.sum())
        # Every unit alike: no cell and no word of the title is hidden more often than another.
        np.testing.assert_allclose(masks.cell_hidden_BN[chosen].mean(0), cell_ratio, atol=margin / 2)
        for word in range(num_words):
            share = word_hidden(masks, words_BT, word)[chosen].mean()
            assert share == pytest.approx(word_ratio, abs=margin / 2)


def test_what_is_hidden_in_the_title_says_nothing_about_the_picture() -> None:
    num_records = 20_000
    words_BT = word_rows([[1, 1, 1]] * num_records, WIDTH)
    masks = masks_of(IndependentConfig(image_ratio=0.3, text_ratio=0.3), keys(num_records), words_BT)
    features = np.c_[masks.cell_hidden_BN, masks.cell_hidden_BN.sum(1), masks.token_hidden_BT[:, 1:4]].astype(float)
    correlation = np.corrcoef(features.T)[:17, 17:]
    assert np.abs(correlation).max() < 5 / np.sqrt(num_records)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.0, False), (1.0, True)])
def test_ratios_zero_and_one_are_exact(ratio: float, hidden: bool) -> None:
    num_records = 2_000
    words_BT = word_rows([[1, 3, 2]] * num_records, WIDTH)
    policy = IndependentConfig(image_ratio=ratio, text_ratio=ratio)
    masks = masks_of(policy, keys(num_records), words_BT)
    assert (masks.cell_hidden_BN == hidden).all()
    assert (masks.token_hidden_BT == ((words_BT >= 0) & hidden)).all()


@pytest.mark.parametrize("num_records", [0, 3])
def test_titles_without_words_hide_nothing(num_records: int) -> None:
    masks = masks_of(IndependentConfig(text_ratio=1.0), keys(num_records), word_rows([[]] * num_records, 4))
    assert masks.token_hidden_BT.shape == (num_records, 4)
    assert not masks.token_hidden_BT.any()
    assert masks.cell_hidden_BN.shape == (num_records, 16)


def test_hide_takes_a_ratio_for_each_record() -> None:
    words_BT = word_rows([[1, 1], [1, 1]], 5)
    ratios = Ratios(np.zeros(2, np.int8), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    masks = hide(ratios, 7, np.zeros(2, np.int64), keys(2), 4, words_BT)
    assert masks.cell_hidden_BN.tolist() == [[False] * 4, [True] * 4]
    assert masks.token_hidden_BT.tolist() == [[False, True, True, False, False], [False] * 5]
