"""What is called predicted is made of what was shown alone, to the bit; and what is shown is what the model says."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlim_ray.config.pictures import PicturesConfig
from mlim_ray.data.counter import hash_key
from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import TextTokenizer, count_words, train_tokenizer
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.cross_modal import CrossModalRow, cross_modal_rows
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.partner_probe import PAPER_RATIO, ProbeSet, make_probe_set
from mlim_ray.evaluation.picture_sheets import ALL_SHEETS, picture_sheets
from mlim_ray.evaluation.picture_task import pictures, sample_pictures
from mlim_ray.evaluation.pictures import reconstruction_rows
from mlim_ray.model import MlimModel
from mlim_ray.model.attention import last_attention
from mlim_ray.training.batch import masked
from mlim_ray.training.tensors import to_tensors
from tests.builders import FIRST_PIECE, IMAGE_SIZE, NUM_CELLS, VOCAB_SIZE, make_model, make_records

PIECES = [f"piece{number}" for number in range(VOCAB_SIZE)]
NUM_RECORDS = 10
TITLES = [f"title {number}" for number in range(NUM_RECORDS)]


def make_probe(records: Records | None = None, seed: int = 0) -> ProbeSet:
    return make_probe_set(
        records or make_records(NUM_RECORDS), num_cells=NUM_CELLS, seed=seed, unigram_entropy=3.0, pixel_variance=0.2
    )


def rows_of(probe: ProbeSet, model: MlimModel | None = None) -> list[CrossModalRow]:
    return cross_modal_rows(model or make_model(), probe, PIECES, NUM_RECORDS)


def guesses_of(row: CrossModalRow, *, with_picture: bool) -> list[object]:
    pieces = row.pieces if with_picture else row.pieces_without_picture
    return [piece.guesses for piece in pieces if piece.is_hidden]


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_no_pixel_reaches_what_was_predicted_without_a_picture(seed: int) -> None:
    records = make_records(NUM_RECORDS)
    pixels = np.random.default_rng(seed).integers(0, 256, records.pixels_RHW3.shape, np.uint8)
    before, after = (rows_of(make_probe(r)) for r in (records, records._replace(pixels_RHW3=pixels)))
    seen_differ = False
    for row, other in zip(before, after, strict=True):
        assert row.from_title_png == other.from_title_png
        assert row.pieces_without_picture == other.pieces_without_picture
        seen_differ |= row.pieces != other.pieces
    assert seen_differ


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_no_hidden_word_reaches_its_guesses_or_its_attention(seed: int) -> None:
    records, probe = make_records(NUM_RECORDS), make_probe()
    hidden = probe.masks(0.0, PAPER_RATIO).token_hidden_BT
    others = np.random.default_rng(seed).integers(FIRST_PIECE, VOCAB_SIZE, hidden.shape)
    ids = np.where(hidden, others, records.token_ids_RT).astype(np.int32)
    before, after = rows_of(probe), rows_of(make_probe(records._replace(token_ids_RT=ids)))
    assert (ids != records.token_ids_RT).any()
    for row, other in zip(before, after, strict=True):
        for with_picture in (True, False):
            assert guesses_of(row, with_picture=with_picture) == guesses_of(other, with_picture=with_picture)
        assert [(a.cells_ratio, a.png) for a in row.attention] == [(a.cells_ratio, a.png) for a in other.attention]


def test_a_picture_from_the_title_is_the_models_and_its_error_is_its_own() -> None:
    probe, model = make_probe(), make_model().eval()
    everything = probe.masks(1.0, 0.0)
    assert everything.cell_hidden_BN.all() and not everything.token_hidden_BT.any()
    inputs = to_tensors(masked(probe.records, everything), torch.device("cpu"))
    with torch.inference_mode():
        painted = model.reconstruct(model.encode(*inputs[:5]).cells_BND).permute(0, 2, 3, 1).numpy()
    for row in rows_of(probe, model):
        np.testing.assert_allclose(opened(row.from_title_png), painted[row.record] * 255.0, atol=0.51)
        error = ((painted[row.record] - probe.records.pixels_RHW3[row.record] / 255.0) ** 2).sum(2).mean()
        assert row.from_title_error == pytest.approx(error, rel=1e-4)


def test_words_are_hidden_alike_with_and_without_the_picture_and_each_has_five_guesses() -> None:
    probe = make_probe()
    known = {row.record: row for row in reconstruction_rows(make_model(), probe, TITLES, PIECES, NUM_RECORDS)}
    assert sum(piece.is_hidden for row in known.values() for piece in row.pieces) > 5
    for row in rows_of(probe):
        assert [p.is_hidden for p in row.pieces] == [p.is_hidden for p in row.pieces_without_picture]
        assert [p.probability for p in row.pieces] == [p.probability for p in known[row.record].pieces]
        for piece, other in zip(row.pieces, known[row.record].pieces, strict=True):
            assert piece.guesses[:3] == other.guesses and len(piece.guesses) == 5 * piece.is_hidden


def test_attention_is_that_of_the_words_own_place_and_lights_its_cells() -> None:
    probe, model = make_probe(), make_model().eval()
    words = probe.masks(0.0, PAPER_RATIO)
    inputs = to_tensors(masked(probe.records, words), torch.device("cpu"))
    weights = last_attention(model, *inputs[:5]).mean(1).numpy()
    shown = 0
    for row in rows_of(probe, model):
        word_of_token = probe.records.word_of_token_RT[row.record]
        hidden = np.unique(word_of_token[words.token_hidden_BT[row.record]])
        assert len(row.attention) == len(hidden)
        for word, look in zip(hidden, row.attention, strict=True):
            places = np.flatnonzero(word_of_token == word)
            assert look.word == "".join(PIECES[i] for i in probe.records.token_ids_RT[row.record, places])
            cells = weights[row.record, NUM_CELLS + places, :NUM_CELLS].mean(0)
            assert look.cells_ratio == pytest.approx(cells.sum(), rel=1e-4) and 0.0 < look.cells_ratio < 1.0
            side = IMAGE_SIZE // 4
            best = int(cells.argmax())
            top, left = best // 4 * side, best % 4 * side
            lit, true = opened(look.png), probe.records.pixels_RHW3[row.record]
            np.testing.assert_array_equal(
                lit[top : top + side, left : left + side], true[top : top + side, left : left + side]
            )
            assert (lit <= true).all() and lit.sum() < true.sum()
            shown += 1
    assert shown > 3


def test_sheets_are_png_files_that_hold_every_picture() -> None:
    probe, model = make_probe(), make_model()
    titles = ["snow\u2603man \u00e9", *TITLES[1:]]
    rows = reconstruction_rows(model, probe, titles, PIECES, 3)
    others = cross_modal_rows(model, probe, PIECES, 3)
    sheets = picture_sheets(rows, others)
    assert list(sheets) == ["record-01.png", "record-02.png", "record-03.png", ALL_SHEETS]
    one, whole = opened(sheets["record-01.png"]), opened(sheets[ALL_SHEETS])
    np.testing.assert_array_equal(whole[: len(one), : one.shape[1]], one)
    factor = 128 // IMAGE_SIZE
    for place, png in enumerate((rows[0].input_png, None, rows[0].reconstruction_png, rows[0].composite_png)):
        if png is not None:
            left = 12 + place * 140
            part = one[39 : 39 + 128, left : left + 128]
            np.testing.assert_array_equal(part, opened(png).repeat(factor, 0).repeat(factor, 1))
    assert picture_sheets([], []) == {}


def make_bench() -> tuple[Bench, TextTokenizer]:
    texts = [f"red bowl {i}" for i in range(6)]
    tokenizer = train_tokenizer(count_words(texts), 60)

    def examples(split: str, seed: int) -> Examples:
        records = make_records(6, seed)._replace(key_hash_R=np.array([hash_key(f"{split}{i}") for i in range(6)]))
        none = np.array([None] * 6, object)
        return Examples(split, records, [f"{split}{i}" for i in range(6)], texts, none, none)

    parts = (examples("train", 1), examples("val", 2), examples("test", 3))
    return Bench(make_model(), make_model(1), tokenizer, *parts, seed=0, on_progress=lambda *_: None), tokenizer


def test_as_an_evaluation_it_counts_what_it_shows() -> None:
    bench, _ = make_bench()
    config = PicturesConfig(num_records=4)
    result, sample = pictures(bench, config), sample_pictures(bench, config)
    assert pictures(bench, config) == result and len(result.records) == 4
    mean = bench.train.records.pixels_RHW3.mean(0) / 255.0
    for figures, row, other in zip(result.records, sample.rows, sample.others, strict=True):
        assert figures.title == bench.test.texts[row.record]
        assert figures.num_hidden_pieces == sum(piece.is_hidden for piece in other.pieces)
        assert figures.num_first == sum(piece.is_right for piece in other.pieces)
        assert figures.num_first <= figures.num_among_five <= figures.num_hidden_pieces
        error = ((bench.test.records.pixels_RHW3[row.record] / 255.0 - mean) ** 2).sum(2).mean()
        assert figures.mean_error == pytest.approx(error)
        assert figures.from_title_error == other.from_title_error
    (table,) = result.tables()
    assert len(table.rows) == 4 and all(list(row) == list(table.rows[0]) for row in table.rows)
    assert len(result.verdict()) == 2
    assert json.loads(json.dumps(dataclasses.asdict(result)))["records"][0]["title"] == result.records[0].title
    assert {row.record for row in sample.rows} == {other.record for other in sample.others}
