"""Reconstruction rows: what is hidden stays hidden, and what is copied is copied."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlim_ray.evaluation.partner_probe import PAPER_RATIO, ProbeSet, make_probe_set
from mlim_ray.evaluation.pictures import (
    GRID_GREY,
    HIDDEN_GREY,
    ReconstructionRow,
    reconstruction_rows,
)
from mlim_ray.objectives import pixels_of_cells
from tests.builders import IMAGE_SIZE, NUM_CELLS, VOCAB_SIZE, make_model, make_records

PIECES = [f"piece{number}" for number in range(VOCAB_SIZE)]
NUM_RECORDS = 12
TITLES = [f"title {number}" for number in range(NUM_RECORDS)]


def make_probe(seed: int = 0) -> ProbeSet:
    return make_probe_set(
        make_records(NUM_RECORDS), num_cells=NUM_CELLS, seed=seed, unigram_entropy=3.0, pixel_variance=0.2
    )


def rows_of(probe: ProbeSet, model_seed: int = 0, num_records: int = 8) -> list[ReconstructionRow]:
    return reconstruction_rows(make_model(model_seed), probe, TITLES, PIECES, num_records)


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def hidden_pixels(probe: ProbeSet, record: int, size: int = IMAGE_SIZE) -> np.ndarray:
    cells = torch.from_numpy(probe.masks(PAPER_RATIO, 0.0).cell_hidden_BN[record : record + 1])
    return pixels_of_cells(cells, size)[0].numpy()


@given(seed=st.integers(0, 2**31))
@settings(max_examples=5)
def test_the_masked_picture_shows_visible_cells_alone(seed: int) -> None:
    probe = make_probe(seed)
    for row in rows_of(probe):
        masked = opened(row.masked_png)
        hidden = hidden_pixels(probe, row.record, len(masked))
        assert set(np.unique(masked[hidden])) <= {HIDDEN_GREY, GRID_GREY}
        assert (masked[hidden] == GRID_GREY).any() and (masked[hidden] == HIDDEN_GREY).any()
        factor = len(masked) // IMAGE_SIZE
        enlarged = probe.records.pixels_RHW3[row.record].repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(masked[~hidden], enlarged[~hidden])


def test_nothing_of_a_hidden_cell_reaches_masked_picture_reconstruction_or_composite() -> None:
    probe = make_probe()
    changed = probe.records.pixels_RHW3.copy()
    for record, pixels in enumerate(changed):
        pixels[hidden_pixels(probe, record)] ^= 0xFF
    other = make_probe_set(
        probe.records._replace(pixels_RHW3=changed),
        num_cells=NUM_CELLS,
        seed=probe.seed,
        unigram_entropy=3.0,
        pixel_variance=0.2,
    )
    for row, row_of_other in zip(rows_of(probe), rows_of(other), strict=True):
        assert row.input_png != row_of_other.input_png
        assert row.masked_png == row_of_other.masked_png
        assert row.reconstruction_png == row_of_other.reconstruction_png
        assert row.composite_png == row_of_other.composite_png


def test_the_composite_is_the_input_at_visible_cells_and_the_model_at_hidden_ones() -> None:
    probe = make_probe()
    for row in rows_of(probe):
        hidden = hidden_pixels(probe, row.record)
        composite, picture = opened(row.composite_png), opened(row.input_png)
        np.testing.assert_array_equal(picture, probe.records.pixels_RHW3[row.record])
        np.testing.assert_array_equal(composite[~hidden], picture[~hidden])
        np.testing.assert_array_equal(composite[hidden], opened(row.reconstruction_png)[hidden])
        assert row.num_hidden_cells == hidden.sum() * NUM_CELLS // hidden.size


def test_errors_are_those_of_hidden_and_visible_pixels() -> None:
    probe = make_probe()
    row = rows_of(probe)[0]
    hidden = hidden_pixels(probe, row.record)
    difference = (opened(row.reconstruction_png) / 255.0 - opened(row.input_png) / 255.0) ** 2
    # The picture shown is rounded to whole levels.
    assert row.hidden_error == pytest.approx(difference.sum(2)[hidden].mean(), abs=0.01)
    assert row.visible_error == pytest.approx(difference.sum(2)[~hidden].mean(), abs=0.01)


def test_guesses_are_the_models_likeliest_pieces_at_hidden_words_only() -> None:
    probe = make_probe()
    hidden_BT = probe.masks(0.0, PAPER_RATIO).token_hidden_BT
    num_hidden = 0
    for row in rows_of(probe):
        positions = np.flatnonzero(probe.records.word_of_token_RT[row.record] >= 0)
        assert [piece.piece for piece in row.pieces] == [
            PIECES[i] for i in probe.records.token_ids_RT[row.record, positions]
        ]
        assert [piece.is_hidden for piece in row.pieces] == hidden_BT[row.record, positions].tolist()
        for piece in row.pieces:
            if not piece.is_hidden:
                assert piece.probability is None
                continue
            num_hidden += 1
            probabilities = [guess.probability for guess in piece.guesses]
            assert len(probabilities) == 3 and probabilities == sorted(probabilities, reverse=True)
            assert piece.is_right == (piece.guesses[0].piece == piece.piece)
            assert piece.probability is not None and 0.0 < piece.probability <= probabilities[0] + 1e-6
    assert num_hidden > 0


def test_a_model_that_knows_one_word_guesses_it() -> None:
    probe, model = make_probe(), make_model()
    with torch.no_grad():
        model.mlm_head.bias[17] = 50.0
    for row in reconstruction_rows(model, probe, TITLES, PIECES):
        for piece in row.pieces:
            if piece.is_hidden:
                assert piece.guesses[0].piece == PIECES[17]
                assert piece.guesses[0].probability == pytest.approx(1.0)
                assert piece.is_right == (piece.piece == PIECES[17])


def test_the_records_do_not_depend_on_the_model() -> None:
    probe = make_probe()
    rows, others = rows_of(probe, model_seed=0), rows_of(probe, model_seed=1)
    assert [row.record for row in rows] == [row.record for row in others]
    assert [row.masked_png for row in rows] == [row.masked_png for row in others]
    assert [row.title for row in rows] == [TITLES[row.record] for row in rows]
    assert rows_of(probe, num_records=3) == rows[:3]
    assert len(rows_of(probe, num_records=100)) == NUM_RECORDS


def test_a_training_model_goes_on_training() -> None:
    model = make_model(dropout_ratio=0.5).train()
    probe = make_probe()
    assert reconstruction_rows(model, probe, TITLES, PIECES) == reconstruction_rows(model, probe, TITLES, PIECES)
    assert model.training


def test_large_pictures_are_reduced_without_mixing_cells() -> None:
    records = make_records(4)
    large = records._replace(pixels_RHW3=records.pixels_RHW3.repeat(16, 1).repeat(16, 2))
    probe = make_probe_set(large, num_cells=NUM_CELLS, seed=0, unigram_entropy=3.0, pixel_variance=0.2)
    model = make_model(image_size=256, embedder_channels=(4, 4, 4, 4, 4, 32), decoder_channels=(4, 4, 4, 4, 4))
    for row in reconstruction_rows(model, probe, TITLES[:4], PIECES):
        masked = opened(row.masked_png)
        hidden = hidden_pixels(probe, row.record, 128)
        assert masked.shape == opened(row.composite_png).shape == (128, 128, 3)
        assert set(np.unique(masked[hidden])) <= {HIDDEN_GREY, GRID_GREY}
        np.testing.assert_array_equal(opened(row.composite_png)[~hidden], opened(row.input_png)[~hidden])


def test_one_title_a_record_is_needed() -> None:
    with pytest.raises(ValueError, match="3 titles for 12 records"):
        reconstruction_rows(make_model(), make_probe(), TITLES[:3], PIECES)
