"""A run's model in ten lines: what it fills in, embeds and paints is what the model computes, no more and no less."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import mlim_ray
from mlim_ray.data.preprocessing import to_pixels
from mlim_ray.data.records import Records
from mlim_ray.evaluation.showing import Shown, encode_pooled
from mlim_ray.inference import LoadedModel
from tests.builders import IMAGE_SIZE, NUM_CELLS, word_rows
from tests.data.pictures import noise

TEXTS = ["red striped bowl", "blue mug", "a green lamp of wood"]
PICTURES = [np.asarray(noise(*size)) for size in ((40, 30), (20, 20), (64, 64))]


class Theirs(NamedTuple):
    """The same folder as transformers loads it."""

    model: Any
    processor: Any


@pytest.fixture(scope="module")
def theirs(run: Path) -> Theirs:
    return Theirs(AutoModel.from_pretrained(run / "model"), AutoProcessor.from_pretrained(run / "model"))


def test_a_run_and_its_model_folder_load_the_same(run: Path, loaded: LoadedModel) -> None:
    same = mlim_ray.load(str(run / "model"), device="cpu")
    assert not same.model.training
    np.testing.assert_array_equal(same.embed(texts=TEXTS), loaded.embed(texts=TEXTS))


@pytest.mark.parametrize("shown", ["image", "text", "both"])
def test_vectors_are_those_that_evaluations_pool(loaded: LoadedModel, shown: Shown) -> None:
    processor = loaded.preprocessor
    pieces = processor.split(TEXTS if shown != "image" else [""] * 3)
    width = processor.max_tokens
    ids = np.zeros((3, width), np.int32)
    words = word_rows([[] for _ in pieces], width)
    for row, one in enumerate(pieces):
        ids[row, : len(one.token_ids)] = one.token_ids
        words[row, : len(one.token_ids)] = one.word_of_token
    records = Records(
        np.arange(3, dtype=np.uint64),
        to_pixels(PICTURES, processor.image_rules, processor.image_encoding),
        ids,
        words,
        np.array([len(one.token_ids) for one in pieces], np.int16),
    )
    with torch.inference_mode():
        expected = encode_pooled(loaded.model, records, shown).numpy()
    given = (
        {"images": PICTURES}
        if shown == "image"
        else {"texts": TEXTS}
        if shown == "text"
        else {"images": PICTURES, "texts": TEXTS}
    )
    found = loaded.embed(**given)
    np.testing.assert_array_equal(found, expected)
    alone = loaded.embed(**{name: values[1] for name, values in given.items()})
    assert alone.shape == (loaded.model.config.hidden_size,)
    np.testing.assert_allclose(alone, expected[1], rtol=1e-4, atol=1e-5)


def test_many_records_are_computed_in_parts(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loaded.embed(images=PICTURES, texts=TEXTS)
    monkeypatch.setattr("mlim_ray.inference.loaded_model._TOGETHER", 2)
    np.testing.assert_allclose(loaded.embed(images=PICTURES, texts=TEXTS), whole, rtol=1e-4, atol=1e-5)
    assert len(loaded.fill([f"{text} [MASK]" for text in TEXTS])) == 3
    assert len(loaded.reconstruct(PICTURES, hidden=0.5)) == 3
    assert loaded.embed(texts=[]).shape == (0, loaded.model.config.hidden_size)


def test_words_are_the_likeliest_whole_words_at_each_mask(loaded: LoadedModel, theirs: Theirs) -> None:
    text = "red [MASK] bowl of [MASK]"
    inputs = theirs.processor(images=PICTURES[0], text=text)
    with torch.inference_mode():
        probability = theirs.model(**inputs).logits[0].softmax(-1)
    vocabulary = theirs.processor.tokenizer.get_vocab()
    places = (inputs["input_ids"][0] == loaded.model.config.mask_token_id).nonzero()[:, 0].tolist()
    filled = loaded.fill(text, PICTURES[0], num_words=4)
    assert len(filled) == len(places) == 2
    for guesses, place in zip(filled, places, strict=True):
        words = {
            word: probability[place, i].item() for word, i in vocabulary.items() if not re.match(r"##|\[.+\]$", word)
        }
        expected = sorted(words.items(), key=lambda item: -item[1])[:4]
        assert [guess.word for guess in guesses] == [word for word, _ in expected]
        assert [guess.probability for guess in guesses] == pytest.approx([p for _, p in expected], rel=1e-4)
    assert loaded.fill([text, "[MASK]"], [PICTURES[0], PICTURES[1]], num_words=4)[0] == [
        [(word, pytest.approx(p, rel=1e-3)) for word, p in guesses] for guesses in filled
    ]
    assert loaded.fill(text) != filled


def test_a_picture_is_painted_from_what_is_shown_alone(loaded: LoadedModel, theirs: Theirs) -> None:
    from_title = loaded.reconstruct(text=TEXTS[0])
    assert isinstance(from_title, Image.Image) and from_title.size == (IMAGE_SIZE, IMAGE_SIZE)
    np.testing.assert_array_equal(np.asarray(loaded.reconstruct(PICTURES[0], TEXTS[0])), np.asarray(from_title))
    hidden = np.zeros((4, 4), bool)
    hidden[1:3, :2] = True
    covered = theirs.processor.image_processor.pixels(PICTURES[0])[0]
    changed = covered.copy()
    changed[4:12, :8] ^= 0xFF
    before, after = (np.asarray(loaded.reconstruct(p, TEXTS[0], hidden=hidden)) for p in (covered, changed))
    np.testing.assert_array_equal(before, after)
    changed[0, 15] ^= 0xFF
    assert (np.asarray(loaded.reconstruct(changed, TEXTS[0], hidden=hidden)) != before).any()
    inputs = theirs.processor(images=covered, text=TEXTS[0])
    with torch.inference_mode():
        expected = theirs.model(**inputs, bool_masked_pos=torch.from_numpy(hidden.reshape(1, -1))).reconstruction[0]
    np.testing.assert_array_equal(before, expected.mul(255).round().byte().permute(1, 2, 0).numpy())


def test_a_share_hides_so_many_cells_by_its_seed(loaded: LoadedModel) -> None:
    chosen = [loaded.hidden_cells(ratio, 0) for ratio in (0.0, 0.25, 0.5, 1.0)]
    assert [cells.sum() for cells in chosen] == [0, NUM_CELLS // 4, NUM_CELLS // 2, NUM_CELLS]
    assert (chosen[2] != loaded.hidden_cells(0.5, 1)).any()
    (one, two) = (np.asarray(loaded.reconstruct(PICTURES[0], hidden=0.5, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_what_cannot_be_done_is_said(run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text 1 has no \[MASK\] within its first 24 pieces: 'blue'"):
        loaded.fill(["[MASK]", "blue"])
    with pytest.raises(ValueError, match="neither a picture nor a text is given"):
        loaded.embed()
    with pytest.raises(ValueError, match="3 pictures and 2 texts"):
        loaded.embed(images=PICTURES, texts=["a", "b"])
    with pytest.raises(ValueError, match="hidden 1.5; expected a share"):
        loaded.reconstruct(text="a", hidden=1.5)
    with pytest.raises(ValueError, match=r"bool of \[16\] or \[4, 4\]"):
        loaded.reconstruct(text="a", hidden=np.zeros(3, bool))
    with pytest.raises(ValueError, match="absent holds no model; expected the folder of a finished run"):
        mlim_ray.load(tmp_path / "absent")
    shutil.copytree(run / "model", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        mlim_ray.load(tmp_path)
    (tmp_path / "model" / "config.json").write_text(json.dumps({"vocab_size": 7}))
    with pytest.raises(ValueError, match=r"model is damaged \(model.safetensors is of another shape"):
        mlim_ray.load(tmp_path)
    (tmp_path / "model" / "processor_config.json").unlink()
    with pytest.raises(ValueError, match=r"model lacks processor_config.json; restore it"):
        mlim_ray.load(tmp_path)


def test_the_folder_holds_nothing_to_execute(run: Path) -> None:
    names = {path.name for path in (run / "model").iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= names
    assert not {name for name in names if Path(name).suffix in (".py", ".bin", ".pkl", ".pt")}
    assert json.loads((run / "model" / "processor_config.json").read_text())["processor_class"] == "MlimProcessor"
