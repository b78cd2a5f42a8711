import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from mlim_ray.data.containers import MAX_SCANS, Container, open_container
from mlim_ray.data.images import ImageRules, decode_image, decode_stored, encode_stored, fit_pixels
from mlim_ray.data.rejection import Problem, Reason
from tests.data.pictures import (
    compressed_144_megapixels,
    encoded,
    jpeg_of_scans,
    jpeg_segment,
    jpeg_with,
    noise,
    png,
    png_chunk,
    png_of,
    turned,
)

RULES = ImageRules(size=16)
ROOT = Path(__file__).resolve().parents[2]


def decode(image: bytes, rules: ImageRules = RULES) -> np.ndarray:
    pixels = decode_image(image, rules)
    assert isinstance(pixels, np.ndarray), pixels
    assert pixels.shape == (rules.size, rules.size, 3) and pixels.dtype == np.uint8
    return pixels


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
    assert np.array_equal(pixels[..., 0], values >> 8)
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


def quarters() -> Image.Image:
    """Four colours, so that each of the eight ways to turn a picture gives another one."""
    image = Image.new("RGB", (32, 32), "black")
    for corner, colour in (((0, 0), "red"), ((16, 0), "lime"), ((0, 16), "blue")):
        image.paste(colour, (*corner, corner[0] + 16, corner[1] + 16))
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_camera_is_applied(orientation: int, kind: str) -> None:
    # What the standard says about row 0 and column 0, as the corners of the picture as it is shown.
    corners = {
        **{1: "red lime blue black", 2: "lime red black blue", 3: "black blue lime red", 4: "blue black red lime"},
        **{5: "red blue lime black", 6: "blue red black lime", 7: "black lime blue red", 8: "lime black red blue"},
    }[orientation]
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(turned(orientation, quarters(), kind, **options), ImageRules(size=32))
    for (row, column), colour in zip(((4, 4), (4, 27), (27, 4), (27, 27)), corners.split(), strict=True):
        assert np.abs(pixels[row, column].astype(int) - np.array(ImageColor.getrgb(colour))).max() < 12, corners


def test_a_picture_is_never_turned_twice_nor_by_what_browsers_ignore() -> None:
    upside_down = decode(turned(3, quarters(), "TIFF"), ImageRules(size=32))
    assert upside_down[4, 4].tolist() == [0, 0, 0]
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="3"/>'
    pixels = decode(jpeg_with(jpeg_segment(0xE1, xmp), quarters(), quality=95), ImageRules(size=32))
    assert pixels[4, 4, 0] > 240 and pixels[4, 4, 1] < 12


TRANSPARENT = ImageRules(size=16, background_colour=(1, 200, 3))


@pytest.mark.parametrize(
    ("colour", "depth", "key", "pixels"),
    [
        (0, 8, (9,), [[9], [200]]),
        (0, 16, (40_000,), [[40_000], [51_400]]),
        (2, 8, (9, 9, 9), [[9, 9, 9], [200, 200, 200]]),
        (2, 16, (2_304, 2_304, 2_304), [[2_304] * 3, [51_400] * 3]),
    ],
)
def test_the_transparent_colour_of_a_png_is_the_background(
    colour: int, depth: int, key: tuple[int, ...], pixels: list[list[int]]
) -> None:
    values = np.array([[pixels[0]] * 8 + [pixels[1]] * 8] * 16)
    chunk = png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    result = decode(png_of(values, colour, depth, chunk), TRANSPARENT)
    assert result[8, 2].tolist() == [1, 200, 3] and result[8, 13].tolist() == [200, 200, 200]


def test_sixteen_bit_greys_near_the_transparent_one_stay() -> None:
    values = np.array([[[40_000]] * 8 + [[40_001]] * 8] * 16)
    result = decode(png_of(values, 0, 16, png_chunk(b"tRNS", struct.pack(">H", 40_000))), TRANSPARENT)
    assert result[8, 2].tolist() == [1, 200, 3] and result[8, 13].tolist() == [156, 156, 156]


def test_the_transparent_grey_of_two_bits_is_the_background() -> None:
    # Rows of 16 pixels of two bits: eight of value 1, eight of value 3.
    body = zlib.compress(b"\0\x55\x55\xff\xff" * 16)
    image = png(16, 16, body, depth=2, before=png_chunk(b"tRNS", b"\0\1"))
    result = decode(image, TRANSPARENT)
    assert result[8, 2].tolist() == [1, 200, 3] and result[8, 13].tolist() == [255, 255, 255]


def test_hidden_colours_do_not_bleed_in() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    pixels = decode(encoded(image), ImageRules(size=15, background_colour=(0, 0, 0)))
    assert pixels[..., 0].max() == 0


def test_inverted_cmyk_of_adobe_and_its_ycck_form_have_the_right_colours() -> None:
    cmyk = Image.new("CMYK", (32, 32), (0, 204, 204, 51))
    assert np.abs(decode(encoded(cmyk, "JPEG", quality=98)).astype(int) - (204, 41, 41)).max() < 6
    # YCCK holds the three inks as YCbCr; the transform of the Adobe marker tells it.
    y, cb, cr = Image.new("RGB", (1, 1), (0, 204, 204)).convert("YCbCr").getpixel((0, 0))
    # What is saved is inverted by Pillow.
    ycck = encoded(Image.new("CMYK", (32, 32), (255 - y, 255 - cb, 255 - cr, 51)), "JPEG", quality=98)
    place = ycck.index(b"Adobe") + 11
    ycck = ycck[:place] + b"\2" + ycck[place + 1 :]
    assert np.abs(decode(ycck).astype(int) - (204, 41, 41)).max() < 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    pixels = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(pixels[8, 8].astype(int) - (255, 0, 0)).max() < 6


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


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_extreme_shapes_are_fitted_by_their_own_rule(fit: str) -> None:
    for width, height in ((8, 4_000), (4_000, 8)):
        image = Image.new("RGB", (width, height), "red")
        rules = ImageRules(size=16, extreme_fit=fit, background_colour=(7, 7, 7))  # type: ignore[arg-type]
        red = (decode(encoded(image), rules) == (255, 0, 0)).all(-1)
        assert red.sum() == (16 if fit == "letterbox" else 256)


def test_the_bound_of_extreme_shapes_is_a_knob() -> None:
    image = encoded(Image.new("RGB", (90, 30), "red"))
    box = ImageRules(size=30, max_aspect_ratio=2.9, background_colour=(7, 7, 7))
    assert (decode(image, ImageRules(size=30, max_aspect_ratio=3.0)) == (255, 0, 0)).all()
    assert (decode(image, box)[:10] == 7).all() and (decode(image, box)[10:20] == (255, 0, 0)).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40))
def test_a_letterbox_keeps_the_whole_picture_in_a_border_of_the_exact_colour(w: int, h: int, size: int) -> None:
    rules = ImageRules(size=size, fit="letterbox", min_side=1, max_aspect_ratio=60, background_colour=(7, 8, 9))
    pixels = fit_pixels(np.full((h, w, 3), 200, np.uint8), rules)
    assert isinstance(pixels, np.ndarray)
    inside = (pixels == 200).all(-1)
    assert (inside | (pixels == (7, 8, 9)).all(-1)).all()
    rows, columns = inside.any(1).sum(), inside.any(0).sum()
    assert inside.sum() == rows * columns
    # The longer side fills the square, the shorter one is in proportion, and the borders are even.
    assert max(rows, columns) == size and abs(rows * max(w, h) - h * size) <= max(w, h)
    top, bottom = inside.any(1).argmax(), inside.any(1)[::-1].argmax()
    left, right = inside.any(0).argmax(), inside.any(0)[::-1].argmax()
    assert abs(int(top) - int(bottom)) <= 1 and abs(int(left) - int(right)) <= 1


@given(st.integers(8, 30), st.integers(0, 40), st.booleans())
def test_a_crop_is_the_middle(side: int, more: int, is_tall: bool) -> None:
    ramp = np.arange(side + 2 * more, dtype=np.uint8)
    pixels = np.repeat(np.broadcast_to(ramp, (side, len(ramp)))[..., None], 3, 2)
    rules = ImageRules(size=side, fit="crop", max_aspect_ratio=100)
    cropped = fit_pixels(np.ascontiguousarray(pixels.transpose(1, 0, 2) if is_tall else pixels), rules)
    assert isinstance(cropped, np.ndarray)
    middle = pixels[:, more : more + side]
    assert np.array_equal(cropped, middle.transpose(1, 0, 2) if is_tall else middle)


@pytest.mark.parametrize("num_scans", [5_000, 100])
def test_scans_behind_a_hidden_end_are_not_decoded(num_scans: int) -> None:
    """An end of picture within a comment must not hide scans from who counts them."""
    whole = jpeg_of_scans(num_scans)
    place = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    hidden = whole[:place] + jpeg_segment(0xFE, b"\xff\xd9") + whole[place:]
    container = open_container(hidden)
    assert isinstance(container, Container)
    assert container.encoded.count(b"\xff\xda") <= MAX_SCANS


def test_metadata_never_reaches_a_decoder() -> None:
    secret = b"find me " * 20
    for image in (
        jpeg_with(jpeg_segment(0xFE, secret) + jpeg_segment(0xE2, secret)),
        encoded(noise())[:33] + png_chunk(b"tEXt", b"a\0" + secret) + encoded(noise())[33:],
    ):
        container = open_container(image)
        assert isinstance(container, Container) and container.is_complete
        assert secret not in container.encoded
        assert np.array_equal(decode(image), decode(container.encoded))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process this way")
def test_memory_that_is_not_there_is_a_reason_of_its_own() -> None:
    code = """
import resource, sys
from PIL import Image
from mlim_ray.data.images import ImageRules, decode_image
from tests.data.pictures import black_png
image = black_png(4_900, 4_900)
decode_image(black_png(40, 30), ImageRules(size=16))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 15_000_000,) * 2)
print(decode_image(image, ImageRules(size=16)).reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == Reason.OUT_OF_MEMORY, done.stderr


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


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_stored_pictures_of_lossy_encodings_come_back_nearly(encoding: str) -> None:
    pixels = np.asarray(noise(4, 4).resize((64, 64)))
    stored = decode_stored(encode_stored(pixels, encoding), 64, encoding)
    assert np.abs(stored.astype(int) - pixels).mean() < 4


def test_a_stored_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 768"):
        decode_stored(b"123", 16, "raw")
    with pytest.raises(ValueError, match="expected 16 x 16"):
        decode_stored(encoded(noise(8, 8)), 16, "png")


def test_decoded_pixels_follow_the_same_rules() -> None:
    assert isinstance(fit_pixels(np.zeros((3, 40, 3), np.uint8), RULES), Problem)
    assert np.array_equal(fit_pixels(np.asarray(noise(16, 16)), RULES), np.asarray(noise(16, 16)))
