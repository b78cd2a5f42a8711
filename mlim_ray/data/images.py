"""Pictures of unknown origin in, small square RGB arrays out.

Formats are an allow-list, so that no decoder that starts other programs is ever reached, and the pixels
that a header claims are checked before anything is decoded. Colour profiles are ignored (our choice).
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mlim_ray.data.containers import open_container, png_lacks_rows
from mlim_ray.data.rejection import Problem, Reason, shorten

Fit = Literal["stretch", "letterbox", "crop"]
ExtremeFit = Literal["letterbox", "crop"]
Pixels = NDArray[np.uint8]

# Pillow knows a format once its module is loaded; it would load all that it has for the first of a format it lacks.
_DECODERS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
)
MAX_ENCODED_BYTES = 100_000_000
JPEG_QUALITY = 92
"""Quality of stored pictures, without chroma subsampling (our choice: cells are small).

Optimised codes would save 15 % of the bytes for 60 % more time, half the resolution of colour 17 % for less.
"""
WEBP_QUALITY = 90
"""Quality of stored pictures (our choice); WebP always halves the resolution of colour."""
# Method 4, which is usual, takes twice the time for 3 % fewer bytes.
_WEBP_METHOD = 2
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_RESAMPLING = Image.Resampling.BICUBIC
# Large pictures are first averaged down to this many times the wanted size. At 1500 x 2000 to 224 without a draft
# that halves the time and leaves 55 dB; 2 instead of 3 saves another fifth but loses 4 to 7 dB at 32 pixels.
_REDUCING_GAP = 3.0
# A JPEG is decoded at a reduced scale only while that leaves this many times the wanted side. From 1500 x 2000 to
# 224, 112 and 32 pixels that takes a half, a third and a quarter of the time and leaves at least 41 dB; from 224 to
# 32 two thirds, 45 dB. With 1.5 or 1 the worst picture falls to 31 to 37 dB, so no less. The thumbnail within EXIF
# is never taken: cameras cut, letterbox and forget to turn it, and an edited picture keeps the old one.
_DRAFT_MARGIN = 2


@dataclass(frozen=True)
class ImageRules:
    """How a picture is bounded and made square."""

    size: int
    fit: Fit = "stretch"
    max_aspect_ratio: float = 4.0
    """longer side by shorter side; pictures beyond it are made square by `extreme_fit`"""
    extreme_fit: ExtremeFit = "letterbox"
    background_colour: tuple[int, int, int] = (255, 255, 255)
    min_side: int = 8
    max_pixels: int = 25_000_000


def decode_image(encoded: bytes, rules: ImageRules) -> Pixels | Problem:
    """Decode untrusted `encoded` to uint8 [size, size, 3], or say what is wrong with it.

    The first frame of an animation is taken, EXIF orientation is applied, transparency is laid on the
    background colour, of 16-bit values the upper byte is kept. Never raises for bad bytes.
    """
    if len(encoded) > MAX_ENCODED_BYTES:
        return Problem(Reason.TOO_MANY_BYTES, f"{len(encoded)} bytes; at most {MAX_ENCODED_BYTES}")
    if not encoded:
        return Problem(Reason.MISSING_PICTURE, "zero bytes")
    container = open_container(encoded)
    if isinstance(container, Problem):
        return container
    problem = _size_problem((container.width, container.height), rules)
    if problem is not None:
        return problem
    if container.max_pixels > rules.max_pixels:
        detail = f"a tile of {container.max_pixels} pixels; at most {rules.max_pixels}"
        return Problem(Reason.TOO_MANY_PIXELS, detail)
    with warnings.catch_warnings():
        # Pillow only warns about pictures that our own bound refuses, and about odd metadata.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(container.encoded), formats=(container.format,)) as image:
                # What the decoder found counts, should it differ from what was read above.
                problem = _size_problem(image.size, rules)
                if problem is not None:
                    return problem
                _load(image, rules)
                if _ends_blank(image) and png_lacks_rows(container.encoded):
                    return Problem(Reason.TRUNCATED_PICTURE, "PNG: fewer rows than its header claims")
                return _to_square(image, rules)
        except Image.DecompressionBombError as error:
            return Problem(Reason.TOO_MANY_PIXELS, shorten(str(error)))
        except MemoryError:
            return Problem(Reason.OUT_OF_MEMORY, f"{container.width} x {container.height} {container.format}")
        except Exception as error:
            # Decoders raise nearly every exception there is on hostile bytes; each means the same here.
            # Their words may tell an address in memory, and a record has the same detail in any process.
            said = _ADDRESS.sub("<picture>", str(error))
            detail = shorten(f"{container.format}: {type(error).__name__}: {said}")
            # Only the decoder knows when a complete file holds too few coded pixels.
            truncated = not container.is_complete or "truncat" in detail.lower() or isinstance(error, EOFError)
            return Problem(Reason.TRUNCATED_PICTURE if truncated else Reason.UNREADABLE_PICTURE, detail)


def fit_pixels(pixels: Pixels, rules: ImageRules) -> Pixels | Problem:
    """Already decoded uint8 [H, W, 3] pixels, made square under the same rules."""
    problem = _size_problem((pixels.shape[1], pixels.shape[0]), rules)
    return problem or _fit(Image.fromarray(pixels), rules)


def fit_image(image: Image.Image, rules: ImageRules) -> Pixels | Problem:
    """An opened picture, made square under the same rules.

    One that was opened from a file and not yet loaded is read again from that file, so that it becomes what
    `decode_image` makes of the bytes; of others a JPEG may have been decoded at another scale.
    """
    encoded = _unread_bytes(image)
    if encoded is not None:
        return decode_image(encoded, rules)
    problem = _size_problem(image.size, rules)
    return problem or _to_square(image.copy(), rules)


def image_facts(encoded: bytes) -> tuple[str, str, int, int] | None:
    """Format, mode, width and height from the header alone; None if it is no picture."""
    container = open_container(encoded)
    if isinstance(container, Problem):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(container.encoded), formats=(container.format,)) as image:
                return container.format, image.mode, image.width, image.height
        except Exception:
            # The reason is the business of decode_image.
            return None


def encode_stored(pixels: Pixels, encoding: str) -> bytes:
    """uint8 [size, size, 3] as bytes in a shard's `encoding`: raw, png, jpeg or webp."""
    if encoding == "raw":
        return np.ascontiguousarray(pixels).tobytes()
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if encoding == "png":
        image.save(buffer, "PNG")
    elif encoding == "jpeg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    elif encoding == "webp":
        image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=_WEBP_METHOD)
    else:
        raise ValueError(f"image encoding {encoding!r}; expected raw, png, jpeg or webp")
    return buffer.getvalue()


def decode_stored(encoded: bytes | pa.Buffer, image_size: int, encoding: str) -> Pixels:
    """The uint8 [size, size, 3] picture behind the bytes of a shard; read-only where it is raw.

    Raises ValueError if the bytes are no picture of that size and encoding.
    """
    shape = (image_size, image_size, 3)
    if encoding == "raw":
        if len(encoded) != image_size * image_size * 3:
            raise ValueError(f"a raw picture of {len(encoded)} bytes; expected {image_size * image_size * 3}")
        return np.frombuffer(encoded, np.uint8).reshape(shape)
    # Pillow reads in small pieces: Python's own buffer answers each far sooner than Arrow's reader.
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG", "WEBP")) as image:
        if image.size != (image_size, image_size):
            raise ValueError(f"a stored picture of {image.size} pixels; expected {image_size} x {image_size}")
        # Converting what is RGB already would copy it.
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _size_problem(size: tuple[int, int], rules: ImageRules) -> Problem | None:
    width, height = size
    if width * height > rules.max_pixels:
        return Problem(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels; at most {rules.max_pixels}")
    if min(width, height) < rules.min_side:
        return Problem(Reason.TOO_SMALL, f"{width} x {height} pixels; at least {rules.min_side} a side")
    return None


def _unread_bytes(image: Image.Image) -> bytes | None:
    """The file behind a picture of which nothing was decoded; None where there is no such file any more."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) and image.tile and image.tell() == 0 else None
    if file is None or file.closed:
        return None
    place = file.tell()
    file.seek(0)
    encoded: bytes = file.read(MAX_ENCODED_BYTES + 1)
    file.seek(place)
    return encoded


def _load(image: ImageFile.ImageFile, rules: ImageRules) -> None:
    if image.format == "PNG":
        _scale_transparent_colour(image)
    image.draft(None, (rules.size * _DRAFT_MARGIN, rules.size * _DRAFT_MARGIN))
    image.load()


def _ends_blank(image: ImageFile.ImageFile) -> bool:
    """Whether rows at the end of a PNG may be missing: Pillow leaves them at zero and says nothing."""
    # Interlaced pixels come in an order that ends with the odd rows.
    return image.format == "PNG" and any(
        image.crop((0, row, image.width, row + 1)).getbbox() is None for row in (image.height - 1, image.height - 2)
    )


def _to_square(image: Image.Image, rules: ImageRules) -> Pixels | Problem:
    wide = _grey_from_wide(image) if image.mode.startswith(("I", "F")) else None
    if isinstance(wide, Problem):
        return wide
    upright = _upright(image if wide is None else wide)
    if upright.has_transparency_data:
        return _fit(upright.convert("RGBA"), rules)
    # Resized in its own mode a grey picture costs a third; palettes and bitmaps cannot be.
    return _fit(upright if upright.mode in {"L", "RGB"} else upright.convert("RGB"), rules)


def _upright(image: Image.Image) -> Image.Image:
    # A TIFF was turned when it was loaded. Like browsers, we take no orientation from elsewhere.
    if "exif" not in image.info:
        return image
    try:
        exif = Image.Exif()
        exif.load(image.info["exif"])
        turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Broken metadata says nothing about the orientation; the pixels are fine.
        return image
    return image if turn is None else image.transpose(turn)


def _grey_from_wide(image: Image.Image) -> Image.Image | Problem:
    """16-bit greys, which Pillow itself would clip at 255, as their upper bytes, as it does with 16-bit colours."""
    values = np.asarray(image)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 0xFFFF:
        return Problem(Reason.UNREADABLE_PICTURE, f"pixels of mode {image.mode} beyond 16 bits; expected 8 or 16 bits")
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.pop("transparency", None)
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    grey.info = image.info
    return grey


def _scale_transparent_colour(image: ImageFile.ImageFile) -> None:
    """Pillow scales the pixels of a PNG to 8 bits, but not the colour that counts as transparent."""
    colour, raw_mode = image.info.get("transparency"), image.tile[0].args
    if image.mode == "RGB" and isinstance(colour, tuple):
        # All colours with the same upper bytes: the lower ones are gone.
        shift = 8 if raw_mode == "RGB;16B" else 0
        image.info["transparency"] = tuple(value >> shift & 0xFF for value in colour)
    elif image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}.get(str(raw_mode), 1) & 0xFF


def _fit(image: Image.Image, rules: ImageRules) -> Pixels:
    """Square RGB pixels of `image`, which is L, RGB or RGBA."""
    fit = rules.fit if max(image.size) <= rules.max_aspect_ratio * min(image.size) else rules.extreme_fit
    size = rules.size
    box = None
    scaled = (size, size)
    if fit == "letterbox":
        longest = max(image.size)
        width, height = (max(1, round(side * size / longest)) for side in image.size)
        scaled = (width, height)
    elif fit == "crop":
        left, top = ((side - min(image.size)) / 2 for side in image.size)
        box = (left, top, left + min(image.size), top + min(image.size))
    # Pillow multiplies colours by alpha while resizing, so hidden colours do not bleed in.
    resized = image.resize(scaled, _RESAMPLING, box=box, reducing_gap=_REDUCING_GAP)
    if resized.size == (size, size) and resized.mode != "RGBA":
        return np.asarray(resized.convert("RGB"))
    canvas = Image.new("RGB", (size, size), rules.background_colour)
    corner = ((size - resized.width) // 2, (size - resized.height) // 2)
    canvas.paste(resized, corner, resized if resized.mode == "RGBA" else None)
    return np.asarray(canvas)
