"""What users feed the model is what training saw, to the bit; and what they get back is what the model computes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoProcessor

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import AcceptedRecord, CleaningRules, RawRecord, clean
from mlim_ray.data.images import decode_stored
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.data.tokenizer import TextTokenizer, count_words, train_tokenizer
from mlim_ray.evaluation.showing import encode_pooled, shown_batch
from mlim_ray.model import MlimModel
from mlim_ray.model.pretrained import MlimOutput, MlimPreTrainedModel
from mlim_ray.model.processor import MlimImageProcessor, MlimProcessor
from mlim_ray.training.tensors import to_tensors
from tests.builders import IMAGE_SIZE, MASK, NUM_CELLS, VOCAB_SIZE, make_model, make_records
from tests.data.pictures import encoded, noise

TEXTS = [
    "Red striped bowl",
    "a very long title of a blue bowl with a lid and two handles",
    "Cafe\u0301  \u0007cup\n",
    "red",
]
MAX_TOKENS = 9


def tokenizer() -> TextTokenizer:
    return train_tokenizer(count_words([*TEXTS, "bowl bowls blue", "caf\u00e9"]), 60)


def config_of(encoding: str = "raw", size: int = IMAGE_SIZE, **knobs: object) -> PrepareConfig:
    config = PrepareConfig.model_validate({"image_encoding": encoding, "max_tokens": MAX_TOKENS, **knobs})
    return resolve_prepare_config(config, size)


def make_processor(**knobs: object) -> MlimProcessor:
    return MlimProcessor.of(config_of(**knobs), tokenizer())  # type: ignore[arg-type]


def prepared_pixels(config: PrepareConfig, image: object) -> np.ndarray:
    """The pixels that a prepared set holds of a picture, as training reads them."""
    record = RawRecord("a", 0, "key", image, "a text", split=None)  # type: ignore[arg-type]
    (accepted,) = clean([record], CleaningRules.of(config, has_split=False)).accepted
    assert isinstance(accepted, AcceptedRecord) and isinstance(config.image_size, int)
    return decode_stored(accepted.image, config.image_size, config.image_encoding)


def turned_jpeg() -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(300, 200).save(out, "JPEG", exif=exif)
    return out.getvalue()


def see_through_png(mode: str = "RGBA") -> bytes:
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    if mode == "RGBA":
        Image.fromarray(rng.integers(0, 256, (40, 50, 4), np.uint8), "RGBA").save(out, "PNG")
    else:
        Image.fromarray(rng.integers(0, 2, (40, 50, 3), np.uint8) * 255).save(out, "PNG", transparency=(255, 0, 255))
    return out.getvalue()


FILES = {
    "large jpeg": encoded(noise(900, 700), "JPEG"),
    "turned jpeg": turned_jpeg(),
    "see-through png": see_through_png(),
    "png with a transparent colour": see_through_png("RGB"),
    "narrow webp": encoded(noise(20, 200), "WEBP"),
    "gif": encoded(noise(64, 48), "GIF"),
}


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg", "webp"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_pictures_are_the_bits_that_training_saw(encoding: str, fit: str, tmp_path: Path) -> None:
    config = config_of(encoding, 48, fit=fit, background_colour=(9, 99, 200))
    processor = MlimProcessor.of(config, tokenizer()).image_processor
    for name, data in FILES.items():
        path = tmp_path / name
        path.write_bytes(data)
        saw = prepared_pixels(config, data)
        for given_as in (data, path, str(path), Image.open(path), Image.open(io.BytesIO(data))):
            np.testing.assert_array_equal(processor.pixels(given_as)[0], saw, err_msg=f"{name} as {type(given_as)}")
    pixels = np.asarray(noise(30, 50))
    np.testing.assert_array_equal(processor.pixels(pixels)[0], prepared_pixels(config, pixels))
    np.testing.assert_array_equal(processor.pixels([Image.fromarray(pixels)])[0], prepared_pixels(config, pixels))


def test_an_opened_picture_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES["see-through png"])
    with Image.open(tmp_path / "a.png") as image:
        first = MlimImageProcessor(image_size=16).pixels(image)
        assert image.tile
        image.load()
        before = np.asarray(image).copy()
        np.testing.assert_array_equal(MlimImageProcessor(image_size=16).pixels(image), first)
        np.testing.assert_array_equal(np.asarray(image), before)
        assert image.mode == "RGBA"


@pytest.mark.parametrize(
    "picture, said",
    [
        (b"no picture", "picture 1 cannot be used"),
        (np.zeros((10, 10, 3)), r"an array of float64 \[10, 10, 3\]; expected a path"),
        (np.zeros((4, 20, 3), np.uint8), "too_small"),
        ("absent.png", "cannot read absent.png: it does not exist"),
        (7, "given as int; expected a path"),
        ("https://shop/a.png", "https:// paths are not supported"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(picture: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MlimImageProcessor(image_size=16).pixels([noise(20, 20), picture])  # type: ignore[list-item]


def test_texts_are_the_pieces_that_training_saw() -> None:
    processor = make_processor()
    rules = CleaningRules.of(config_of(), has_split=False)
    records = [RawRecord("a", i, f"k{i}", np.asarray(noise(20, 20)), text) for i, text in enumerate(TEXTS)]
    kept = [record.text for record in clean(records, rules).accepted]
    expected = tokenizer().encode(kept, MAX_TOKENS)
    inputs = processor(text=TEXTS, return_tensors="np")
    for row, pieces in enumerate(expected):
        present = inputs["attention_mask"][row].astype(bool)
        assert inputs["input_ids"][row][present].tolist() == pieces.token_ids
    assert max(len(pieces.token_ids) for pieces in expected) == inputs["input_ids"].shape[1] <= MAX_TOKENS
    assert expected[1].token_ids[-2] != 0
    # The tokenizer that users may call with padding of their own changes nothing here.
    processor.tokenizer(TEXTS, padding=True, truncation=True, max_length=4)
    again = processor(text=TEXTS, return_tensors="np")
    np.testing.assert_array_equal(again["input_ids"], inputs["input_ids"])


def test_the_processor_says_what_is_wrong() -> None:
    processor = make_processor()
    with pytest.raises(ValueError, match="neither a picture nor a text"):
        processor()
    with pytest.raises(ValueError, match="1 pictures and 2 texts"):
        processor(images=noise(20, 20), text=["a", "b"])
    with pytest.raises(ValueError, match="text 1 is a NoneType"):
        processor(text=["a", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="padding 'left'"):
        processor(text="a", padding="left")  # type: ignore[arg-type]
    assert processor(images=noise(20, 20))["input_ids"].shape == (1, 2)
    assert processor(text="")["input_ids"].shape == (1, 2)
    assert "pixel_values" not in processor(text="red")
    assert processor(text="red", padding="max_length")["input_ids"].shape == (1, MAX_TOKENS)


def pretrained(seed: int = 0, **shape: object) -> MlimPreTrainedModel:
    return MlimPreTrainedModel.of(make_model(seed, **shape)).eval()


def model_for(processor: MlimProcessor) -> MlimPreTrainedModel:
    return pretrained(vocab_size=len(processor.tokenizer), max_tokens=MAX_TOKENS)


def test_saved_and_loaded_processor_and_model_give_the_same_bits(tmp_path: Path) -> None:
    processor = make_processor(fit="crop", background_colour=(1, 2, 3), max_text_characters=12)
    model = model_for(processor)
    for folder in (tmp_path / "once", tmp_path / "twice"):
        processor.save_pretrained(folder)
        model.save_pretrained(folder)
        loaded, loaded_model = AutoProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
        assert type(loaded) is MlimProcessor and type(loaded_model) is MlimPreTrainedModel
        assert type(AutoImageProcessor.from_pretrained(folder)) is MlimImageProcessor
        assert loaded.to_json_string() == processor.to_json_string()
        assert (loaded.max_tokens, loaded.max_text_characters) == (MAX_TOKENS, 12)
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded_model.state_dict()[name], weight), name
        with torch.inference_mode():
            pictures = [noise(50, 30), FILES["turned jpeg"], noise(20, 20), noise(16, 16)]
            given, again = (one(images=pictures, text=TEXTS) for one in (processor, loaded))
            for name in given:
                assert torch.equal(given[name], again[name]), name
            for before, after in zip(model(**given).values(), loaded_model(**again).values(), strict=True):
                assert torch.equal(before, after)
        processor, model = loaded, loaded_model


@torch.inference_mode()
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), side=st.sampled_from(["image", "text", "both"]))
def test_named_inputs_give_what_training_computes(seed: int, side: str) -> None:
    model, records = pretrained(seed % 7), make_records(8, seed)
    inputs = to_tensors(shown_batch(records, side, NUM_CELLS), torch.device("cpu"))  # type: ignore[arg-type]
    states = model.encode(*inputs[:5])
    ids = torch.where(inputs.token_hidden_BT, MASK, inputs.token_ids_BT)
    named = {"input_ids": ids, "attention_mask": inputs.token_present_BT.long()}
    if side != "text":
        named["pixel_values"] = inputs.pixels_B3HW
    out = model(**named)
    assert isinstance(out, MlimOutput)
    assert torch.equal(out.last_hidden_state, torch.cat([states.cells_BND, states.tokens_BTD], 1))
    logits, picture = MlimModel.forward(model, *inputs[:5])
    torch.testing.assert_close(out.logits[inputs.token_hidden_BT], logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.reconstruction, picture, rtol=1e-4, atol=1e-5)
    assert torch.equal(encode_pooled(model, records, side), out.pooler_output)  # type: ignore[arg-type]


@torch.inference_mode()
@settings(max_examples=15)
@given(data=st.data())
def test_padding_moves_no_output(data: st.DataObject) -> None:
    processor = make_processor()
    model = model_for(processor)
    words = st.lists(st.sampled_from(["red", "bowl", "blue", "[MASK]", "striped"]), max_size=6).map(" ".join)
    texts = data.draw(st.lists(words, min_size=1, max_size=5))
    pictures = [noise(20, 20)] * len(texts)
    together = processor(images=pictures, text=texts, padding="max_length")
    # What stands at padding is never looked at.
    junk = torch.randint(model.config.vocab_size, together["input_ids"].shape)
    together["input_ids"] = torch.where(together["attention_mask"].bool(), together["input_ids"], junk)
    padded = model(**together)
    for row, text in enumerate(texts):
        alone = model(**processor(images=pictures[0], text=text))
        num_tokens = alone.logits.shape[1]
        for name in ("pooler_output", "reconstruction"):
            torch.testing.assert_close(padded[name][row], alone[name][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(padded.logits[row, :num_tokens], alone.logits[0], rtol=1e-4, atol=1e-5)
        shown = NUM_CELLS + num_tokens
        torch.testing.assert_close(
            padded.last_hidden_state[row, :shown], alone.last_hidden_state[0], rtol=1e-4, atol=1e-5
        )
        assert not padded.last_hidden_state[row, shown:].any()


def test_inputs_of_another_shape_are_refused() -> None:
    model = pretrained()
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="input_ids has 11 positions and the model takes at most 10"):
        model(input_ids=torch.ones(1, 11, dtype=torch.long))
    with pytest.raises(ValueError, match=r"pixel_values has shape \(2, 3, 8, 8\)"):
        model(input_ids=ids, pixel_values=torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"bool_masked_pos has shape \(2, 4\)"):
        model(input_ids=ids, pixel_values=torch.zeros(2, 3, 16, 16), bool_masked_pos=torch.zeros(2, 4))


def test_a_model_of_another_precision_takes_the_same_inputs() -> None:
    model = pretrained().to(torch.bfloat16)
    ids = torch.randint(5, VOCAB_SIZE, (2, 6))
    out = model(input_ids=ids, pixel_values=torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert out.pooler_output.dtype == torch.bfloat16 and out.pooler_output.isfinite().all()
