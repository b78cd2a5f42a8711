"""What the demo answers is what the model computes, and nothing that is hidden reaches what is called predicted."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.evaluation.pictures import HIDDEN_GREY
from mlim_ray.inference import LoadedModel
from mlim_ray.inference.answer import NUM_NEIGHBOURS, Painting, Question, Respondent
from mlim_ray.inference.gallery import Gallery, open_gallery
from tests.builders import IMAGE_SIZE, NUM_CELLS
from tests.data.pictures import encoded, noise

PICTURE = encoded(noise(IMAGE_SIZE, IMAGE_SIZE))


@pytest.fixture(scope="module")
def gallery(loaded: LoadedModel) -> Gallery:
    return open_gallery("generated:200", loaded, PrepareConfig(), 60)


def pixels(paintings: Sequence[Painting], name: str) -> np.ndarray:
    (png,) = (one.png for one in paintings if one.name == name)
    return np.asarray(Image.open(io.BytesIO(png)))


def test_words_with_and_without_the_picture_are_those_of_fill(loaded: LoadedModel) -> None:
    found = Respondent(loaded).answer(Question("red [MASK] bowl [MASK]", PICTURE))
    assert [place.word for place in found.words] == [None, None]
    for i, place in enumerate(found.words):
        assert place.guesses == {
            "with the picture": loaded.fill("red [MASK] bowl [MASK]", PICTURE)[i],
            "without a picture": loaded.fill("red [MASK] bowl [MASK]")[i],
        }
    assert "Each [MASK] was hidden" in found.words_caption and "not calibrated" in found.words_caption


def test_without_a_mask_each_word_is_hidden_in_turn(loaded: LoadedModel) -> None:
    found = Respondent(loaded).answer(Question("red  striped\tbowl"))
    assert [place.word for place in found.words] == ["red", "striped", "bowl"]
    turns = ["[MASK] striped bowl", "red [MASK] bowl", "red striped [MASK]"]
    for place, turn in zip(found.words, turns, strict=True):
        (guesses,) = place.guesses.values()
        assert [guess.word for guess in guesses] == [guess.word for guess in loaded.fill(turn)[0]]
    assert "no picture" in found.words_caption


def test_words_beyond_what_the_model_reads_are_told(loaded: LoadedModel) -> None:
    found = Respondent(loaded).answer(Question("red " * 60))
    most = loaded.preprocessor.max_tokens - 2
    assert len(found.words) == most and f"the first {most} of the 60 words" in found.words_caption


def test_a_picture_alone_is_told_in_hidden_words(loaded: LoadedModel) -> None:
    found = Respondent(loaded).answer(Question(picture=PICTURE))
    assert [list(place.guesses) for place in found.words] == [["with the picture"]] * 3
    assert "No title was given" in found.words_caption
    assert [one.name for one in found.paintings] == ["input", "hidden", "reconstruction", "composite"]


def test_hidden_cells_reach_nothing_that_is_predicted(loaded: LoadedModel) -> None:
    before = Respondent(loaded).answer(Question("red bowl", PICTURE, hidden=0.5, seed=2)).paintings
    hidden_N = loaded.hidden_cells(0.5, 2)
    assert hidden_N.sum() == NUM_CELLS // 2
    side = round(NUM_CELLS**0.5)
    cell = IMAGE_SIZE // side
    hidden = hidden_N.reshape(side, side).repeat(cell, 0).repeat(cell, 1)
    changed = np.asarray(noise(IMAGE_SIZE, IMAGE_SIZE)).copy()
    changed[hidden] ^= 0xFF
    after = Respondent(loaded).answer(Question("red bowl", encoded(Image.fromarray(changed)), hidden=0.5, seed=2))
    for name in ("reconstruction", "composite", "hidden", "from the title alone"):
        np.testing.assert_array_equal(pixels(before, name), pixels(after.paintings, name))
    shown, painted = pixels(before, "input"), pixels(before, "reconstruction")
    np.testing.assert_array_equal(pixels(before, "composite"), np.where(hidden[..., None], painted, shown))
    grey = pixels(before, "hidden")
    factor = len(grey) // IMAGE_SIZE
    inner = grey[factor // 2 :: factor, factor // 2 :: factor]
    assert ((inner == HIDDEN_GREY).all(-1) >= hidden).all()
    captions = {one.name: one.caption for one in before}
    assert captions["hidden"] == f"{NUM_CELLS // 2} of {NUM_CELLS} cells hidden"
    assert "predicted" not in captions["input"] and captions["reconstruction"].startswith("predicted, every pixel")


def test_neighbours_are_the_nearest_by_what_was_given(loaded: LoadedModel, gallery: Gallery) -> None:
    respondent = Respondent(loaded, gallery)
    own = 7
    assert gallery.texts is not None and gallery.pixels_RHW3 is not None
    picture, text = encoded(Image.fromarray(gallery.pixels_RHW3[own])), gallery.texts[own]
    for question, said in (
        (Question(picture=picture), "by their pictures alone"),
        (Question(text), "by their titles alone"),
        (Question(text, picture), "by picture and title together"),
    ):
        found = respondent.answer(question)
        assert said in found.neighbours_caption and len(found.neighbours) == NUM_NEIGHBOURS
        similarities = [one.similarity for one in found.neighbours]
        assert similarities == sorted(similarities, reverse=True)
        assert found.neighbours[0].similarity == pytest.approx(1.0, abs=1e-3)
        assert question.text in ("", found.neighbours[0].text)
    assert respondent.answer(Question(picture=picture)).neighbours[0].key == gallery.keys[own]


def test_a_title_that_shows_nothing_has_no_neighbours(loaded: LoadedModel, gallery: Gallery) -> None:
    found = Respondent(loaded, gallery).answer(Question("[MASK] [MASK]"))
    assert found.neighbours == [] and "no visible word" in found.neighbours_caption
    assert "--neighbours" in Respondent(loaded).answer(Question("red")).neighbours_caption


def test_what_cannot_be_answered_is_said(loaded: LoadedModel) -> None:
    respondent = Respondent(loaded)
    with pytest.raises(ValueError, match="neither a picture nor a title is given"):
        respondent.answer(Question(" \t"))
    with pytest.raises(ValueError, match="the picture cannot be used: unreadable_picture"):
        respondent.answer(Question(picture=b"no picture"))
    with pytest.raises(ValueError, match=r"no \[MASK\] within its first"):
        respondent.answer(Question("red " * 60 + "[MASK]"))
