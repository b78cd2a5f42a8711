"""The generated catalogue: pure, sliceable, consistent, and with the statistics that the limits assume."""

from __future__ import annotations

import io
import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlim_ray.data.synthetic import ATTRIBUTES, SCHEMA, generate
from mlim_ray.data.synthetic.pictures import draw_noise, noise_free_pictures, noise_table, noise_variance

NUM_RECORDS = 6000
COLUMN = {name: "label" if name == "category" else name for name in ATTRIBUTES}


@pytest.fixture(scope="module")
def catalogue() -> pa.Table:
    return generate(0, NUM_RECORDS, num_records=NUM_RECORDS, seed=5)


@pytest.fixture(scope="module")
def pictures(catalogue: pa.Table) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in catalogue["image"].to_pylist()])


@given(cuts=st.lists(st.integers(0, 90), max_size=3), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=15, deadline=None)
def test_any_slicing_gives_the_same_records(cuts: list[int], seed: int) -> None:
    whole = generate(0, 90, num_records=90, seed=seed, image_size=16)
    edges = [0, *sorted(cuts), 90]
    parts = [
        generate(start, stop, num_records=90, seed=seed, image_size=16) for start, stop in itertools.pairwise(edges)
    ]
    assert pa.concat_tables(parts).combine_chunks().equals(whole)
    assert whole.schema == SCHEMA


def test_slices_that_cross_internal_batches_agree() -> None:
    whole = generate(0, 1100, num_records=1100)
    assert generate(500, 1100, num_records=1100).equals(whole.slice(500).combine_chunks())


def test_a_smaller_catalogue_is_the_beginning_of_a_larger_one() -> None:
    assert generate(0, 40, num_records=40).equals(generate(0, 40, num_records=1000))


def test_seeds_give_other_catalogues() -> None:
    first, second = (generate(0, 60, num_records=60, seed=seed) for seed in (0, 1))
    assert not set(first["key"].to_pylist()) & set(second["key"].to_pylist())
    assert not set(first["image"].to_pylist()) & set(second["image"].to_pylist())
    assert first["text"].to_pylist() != second["text"].to_pylist()


@pytest.mark.parametrize(
    ("start", "stop", "options"),
    [
        (-1, 3, {}),
        (3, 2, {}),
        (0, 11, {}),
        (0, 3, {"image_size": 7}),
        (0, 3, {"seed": -1}),
        (0, 3, {"seed": 2**64}),
    ],
)
def test_what_cannot_be_generated_is_refused(start: int, stop: int, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        generate(start, stop, num_records=10, **options)


def test_an_empty_slice_has_the_schema() -> None:
    assert generate(4, 4, num_records=10).schema == SCHEMA


def test_keys_are_unique(catalogue: pa.Table) -> None:
    assert len(set(catalogue["key"].to_pylist())) == NUM_RECORDS


def test_groups_hold_one_to_three_listings_of_one_product_in_one_split(catalogue: pa.Table) -> None:
    columns = ["split", *COLUMN.values()]
    seen: dict[str, set[tuple[str, ...]]] = {}
    for row in catalogue.select(["group", *columns]).to_pylist():
        seen.setdefault(row["group"], set()).add(tuple(row[column] for column in columns))
    assert all(len(products) == 1 for products in seen.values())
    sizes = Counter(Counter(catalogue["group"].to_pylist()).values())
    assert sizes == {size: NUM_RECORDS // 6 for size in (1, 2, 3)}


def test_a_tenth_of_the_groups_each_is_held_out(catalogue: pa.Table) -> None:
    split_of_group = dict(zip(catalogue["group"].to_pylist(), catalogue["split"].to_pylist(), strict=True))
    counts, total = Counter(split_of_group.values()), len(split_of_group)
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(counts[split] / total - share) < 4 * (share * (1 - share) / total) ** 0.5


def test_attributes_are_uniform_and_pairwise_independent(catalogue: pa.Table) -> None:
    first_of_group = np.unique(np.array(catalogue["group"].to_pylist()), return_index=True)[1]
    values = {
        name: np.array([ATTRIBUTES[name].names.index(value) for value in catalogue[column].to_pylist()])[first_of_group]
        for name, column in COLUMN.items()
    }
    names = list(ATTRIBUTES)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            num_cells = ATTRIBUTES[one].num_values * ATTRIBUTES[other].num_values
            cells = np.bincount(values[one] * ATTRIBUTES[other].num_values + values[other], minlength=num_cells)
            expected = len(first_of_group) / num_cells
            chi_square, freedom = np.sum((cells - expected) ** 2) / expected, num_cells - 1
            assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_pictures_decode_to_the_size_asked_for() -> None:
    for size in (16, 50):
        image = Image.open(io.BytesIO(generate(0, 1, num_records=1, image_size=size)["image"][0].as_py()))
        assert (image.size, image.mode, image.format) == ((size, size), "RGB", "PNG")


def test_no_level_is_clipped(pictures: np.ndarray) -> None:
    assert pictures.min() > 0 and pictures.max() < 255
    rng = np.random.default_rng(0)
    values = {name: rng.integers(0, attribute.num_values, 2000) for name, attribute in ATTRIBUTES.items()}
    clean = noise_free_pictures(values, rng.random((2000, 8), dtype=np.float32), 32).astype(int)
    assert clean.min() + noise_table().min() >= 0 and clean.max() + noise_table().max() <= 255


def test_noise_is_centred_with_the_stated_variance() -> None:
    table = noise_table().astype(float)
    assert table.mean() == 0
    assert noise_variance() * 255**2 == pytest.approx(table.var())
    assert noise_variance() * 255**2 == pytest.approx(5.0**2 + 1 / 12, rel=1e-2)


def test_noise_is_independent_between_records_pixels_and_channels() -> None:
    noise = draw_noise(np.arange(200, dtype=np.int64), 0, 32).view(np.int8).astype(float)
    variance = noise.var()
    for shifted in (
        noise[1:] * noise[:-1],
        noise[:, 1:] * noise[:, :-1],
        noise[:, :, 1:] * noise[:, :, :-1],
        noise[..., 1:] * noise[..., :-1],
    ):
        assert abs(shifted.mean() / variance) < 5 / shifted.size**0.5
    assert variance == pytest.approx(noise_variance() * 255**2, rel=0.01)


def test_duplicates_differ_in_pose_background_and_wording(catalogue: pa.Table, pictures: np.ndarray) -> None:
    rows_of_group: dict[str, list[int]] = {}
    for row, group in enumerate(catalogue["group"].to_pylist()):
        rows_of_group.setdefault(group, []).append(row)
    pairs = [rows[:2] for rows in rows_of_group.values() if len(rows) > 1]
    texts = catalogue["text"].to_pylist()
    assert all(texts[one] != texts[other] for one, other in pairs)

    one, other = (pictures[[pair[side] for pair in pairs]].astype(float) for side in (0, 1))
    noise_only = 2 * noise_variance() * 255**2
    difference = np.mean((one - other) ** 2, axis=(1, 2, 3))
    assert np.mean(difference > 2 * noise_only) > 0.95
    background = (one[:, :2, :2] - other[:, :2, :2]).mean(axis=(1, 2))
    assert np.mean(np.abs(background).max(axis=1) > 3) > 0.8


def test_neither_modality_alone_tells_a_product_from_all_others(catalogue: pa.Table) -> None:
    rows = catalogue.to_pylist()
    shown = [COLUMN[name] for name, attribute in ATTRIBUTES.items() if attribute.is_shown]
    groups_of_look: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        groups_of_look.setdefault(tuple(row[column] for column in shown), set()).add(row["group"])
    shared = sum(len(groups) for groups in groups_of_look.values() if len(groups) > 1)
    assert shared > 0.9 * len({row["group"] for row in rows})
    for row in rows:
        assert len(set(row["text"].split()) & _words_of_all_attributes(row)) < len(ATTRIBUTES)


def _words_of_all_attributes(row: dict[str, str]) -> set[str]:
    return {
        word
        for name, attribute in ATTRIBUTES.items()
        for word in attribute.wordings[attribute.names.index(row[COLUMN[name]])]
    }
