import io
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlim_ray.data.images import ImageRules, decode_image, decode_stored, encode_stored, fit_pixels
from mlim_ray.data.rejection import Problem, Reason
from tests.data.pictures import BAD, compressed_144_megapixels, encoded, noise

RULES = ImageRules(size=16)


def decode(image: bytes, rules: ImageRules = RULES) -> np.ndarray:
    pixels = decode_image(image, rules)
    assert isinstance(pixels, np.ndarray), pixels
    assert pixels.shape == (rules.size, rules.size, 3) and pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize("name", [name for name, (image, _) in BAD.items() if image is not None])
def test_bad_pictures_have_their_reason(name: str) -> None:
    image, reason = BAD[name]
    assert image is not None
    problem = decode_image(image, RULES)
    assert isinstance(problem, Problem)
    assert problem.reason == reason, problem.detail


def test_pixels_are_bounded_before_decoding_and_without_a_warning() -> None:
    image = compressed_144_megapixels()
    assert len(image) < 200_000
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem = decode_image(image, RULES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(problem, Problem) and problem.reason is Reason.TOO_MANY_PIXELS
    assert peak < 5_000_000


def test_limits_of_the_process_stay_as_they_are() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decode(encoded(noise()))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_allowed_format_is_read(kind: str) -> None:
    colour = decode(encoded(Image.new("RGB", (40, 30), (200, 40, 90)), kind)).reshape(-1, 3)
    assert np.abs(colour.astype(int) - (200, 40, 90)).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "YCbCr", "HSV"])
def test_every_mode_gives_rgb(mode: str) -> None:
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF", "HSV": "PNG", "PA": "PNG"}.get(mode, "PNG")
    image = Image.new("RGB", (40, 30), "white")
    if mode == "I;16":
        image = Image.fromarray(np.full((30, 40), 65_535, np.uint16))
    elif mode not in {"HSV", "PA"}:
        image = image.convert(mode)
    assert decode(encoded(image, kind)).min() >= 254


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(values)))
    assert np.array_equal(pixels[..., 0], (values.astype(int) * 255 // 65_535))
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_transparency_is_laid_on_the_background_colour() -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 16, 32))
    pixels = decode(encoded(image), ImageRules(size=32, background_colour=(1, 200, 3)))
    assert pixels[5, 2].tolist() == [255, 0, 0]
    assert pixels[5, 29].tolist() == [1, 200, 3]


def test_a_transparent_palette_entry_is_the_background() -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 16, 32))
    pixels = decode(encoded(image, transparency=0), ImageRules(size=32, background_colour=(9, 8, 7)))
    assert pixels[5, 29].tolist() == [9, 8, 7] and pixels[5, 2].tolist() == [255, 0, 0]


def test_orientation_of_the_camera_is_applied() -> None:
    image = Image.new("RGB", (32, 32), "black")
    image.paste((255, 255, 255), (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = decode(encoded(image, "JPEG", exif=exif, quality=95), ImageRules(size=32))
    assert pixels[2].mean() < 10 and pixels[29].mean() > 245


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    pixels = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels[8, 8].tolist() == [255, 0, 0]


def test_fits() -> None:
    image = Image.new("RGB", (64, 32), "black")
    image.paste((255, 255, 255), (0, 0, 16, 32))
    white = (255, 255, 255)
    stretched = decode(encoded(image), ImageRules(size=32))
    assert (stretched[16, 2] == white).all() and (stretched[16, 29] == 0).all()
    boxed = decode(encoded(image), ImageRules(size=32, fit="letterbox", background_colour=(7, 7, 7)))
    assert (boxed[3] == 7).all() and (boxed[28] == 7).all() and (boxed[16, 29] == 0).all()
    cropped = decode(encoded(image), ImageRules(size=32, fit="crop"))
    assert (cropped[16, 2:] == 0).all()


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_extreme_shapes_become_square(fit: str) -> None:
    for size in ((8, 4_000), (4_000, 8)):
        decode(encoded(Image.new("RGB", size)), ImageRules(size=16, fit=fit))  # type: ignore[arg-type]


def test_equals_an_independent_decode() -> None:
    image = encoded(noise(60, 80), "JPEG")
    expected = Image.open(io.BytesIO(image)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(decode(image, ImageRules(size=32)), np.asarray(expected))


def test_large_jpegs_are_close_to_an_independent_decode() -> None:
    smooth = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 6, 3), np.uint8)).resize((900, 900))
    image = encoded(smooth, "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize((32, 32), Image.Resampling.BOX))
    assert np.abs(decode(image, ImageRules(size=32)).astype(int) - expected).mean() < 3


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_stored_pictures_come_back_exactly(encoding: str) -> None:
    pixels = np.asarray(noise(16, 16))
    assert np.array_equal(decode_stored(encode_stored(pixels, encoding), 16, encoding), pixels)


def test_stored_jpegs_come_back_nearly() -> None:
    pixels = np.asarray(noise(4, 4).resize((64, 64)))
    stored = decode_stored(encode_stored(pixels, "jpeg"), 64, "jpeg")
    assert np.abs(stored.astype(int) - pixels).mean() < 4


def test_a_stored_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 768"):
        decode_stored(b"123", 16, "raw")
    with pytest.raises(ValueError, match="expected 16 x 16"):
        decode_stored(encoded(noise(8, 8)), 16, "png")


def test_decoded_pixels_follow_the_same_rules() -> None:
    assert isinstance(fit_pixels(np.zeros((3, 40, 3), np.uint8), RULES), Problem)
    assert np.array_equal(fit_pixels(np.asarray(noise(16, 16)), RULES), np.asarray(noise(16, 16)))


@given(data=st.data())
def test_any_bytes_end_as_a_picture_or_a_problem(data: st.DataObject) -> None:
    good = encoded(noise(20, 20), data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])))
    cut = data.draw(st.integers(0, len(good)))
    image = bytearray(good[:cut] + data.draw(st.binary(max_size=30)))
    for place in data.draw(st.lists(st.integers(0, max(0, len(image) - 1)), max_size=5)):
        if image:
            image[place] ^= data.draw(st.integers(1, 255))
    result = decode_image(bytes(image), RULES)
    assert isinstance(result, Problem) or result.shape == (16, 16, 3)
