"""Pictures of unknown origin in, small square RGB arrays out.

Formats are an allow-list, so that no decoder that starts other programs is ever reached, and the pixels
that a header claims are checked before anything is decoded. Colour profiles are ignored (our choice).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from mlim_ray.data.rejection import Problem, Reason, shorten

Fit = Literal["stretch", "letterbox", "crop"]
Pixels = NDArray[np.uint8]

# Pillow knows a format once its module is loaded. JPEG includes MPO, the several-picture form of telephones.
_DECODERS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(decoder.format for decoder in _DECODERS)
MAX_ENCODED_BYTES = 100_000_000
JPEG_QUALITY = 92
"""Quality of stored pictures, without chroma subsampling (our choice: cells are small)."""
_RESAMPLING = Image.Resampling.BICUBIC
# Large pictures are first averaged down to this many times the wanted size: faster, and hardly to be seen.
_REDUCING_GAP = 3.0
# A JPEG is decoded at a reduced scale only while that leaves this many times the wanted side.
_DRAFT_MARGIN = 2


@dataclass(frozen=True)
class ImageRules:
    """How a picture is bounded and made square."""

    size: int
    fit: Fit = "stretch"
    background_colour: tuple[int, int, int] = (255, 255, 255)
    min_side: int = 8
    max_pixels: int = 25_000_000


def decode_image(encoded: bytes, rules: ImageRules) -> Pixels | Problem:
    """Decode untrusted `encoded` to uint8 [size, size, 3], or say what is wrong with it.

    The first frame of an animation is taken, EXIF orientation is applied, transparency is laid on the
    background colour, 16-bit greys are scaled to 8 bits. Never raises for bad bytes.
    """
    if len(encoded) > MAX_ENCODED_BYTES:
        return Problem(Reason.TOO_MANY_BYTES, f"{len(encoded)} bytes; at most {MAX_ENCODED_BYTES}")
    if not encoded:
        return Problem(Reason.MISSING_PICTURE, "zero bytes")
    with warnings.catch_warnings():
        # Pillow only warns about pictures that our own bound refuses, and about odd metadata.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                return _size_problem(image.size, rules) or _to_square(image, rules)
        except Image.DecompressionBombError as error:
            return Problem(Reason.TOO_MANY_PIXELS, shorten(str(error)))
        except UnidentifiedImageError:
            return Problem(Reason.UNREADABLE_PICTURE, f"no picture of a known format ({', '.join(FORMATS)})")
        except Exception as error:
            # Decoders raise nearly every exception there is on hostile bytes; each means the same here.
            detail = shorten(f"{type(error).__name__}: {error}")
            truncated = "truncat" in detail.lower() or isinstance(error, EOFError)
            return Problem(Reason.TRUNCATED_PICTURE if truncated else Reason.UNREADABLE_PICTURE, detail)


def fit_pixels(pixels: Pixels, rules: ImageRules) -> Pixels | Problem:
    """Already decoded uint8 [H, W, 3] pixels, made square under the same rules."""
    problem = _size_problem((pixels.shape[1], pixels.shape[0]), rules)
    return problem or _fit(Image.fromarray(pixels), rules)


def image_facts(encoded: bytes) -> tuple[str, str, int, int] | None:
    """Format, mode, width and height from the header alone; None if it is no picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                return image.format or "", image.mode, image.width, image.height
        except Exception:
            # The reason is the business of decode_image.
            return None


def encode_stored(pixels: Pixels, encoding: str) -> bytes:
    """uint8 [size, size, 3] as bytes in a shard's `encoding`: raw, png or jpeg."""
    if encoding == "raw":
        return np.ascontiguousarray(pixels).tobytes()
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if encoding == "png":
        image.save(buffer, "PNG")
    elif encoding == "jpeg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        raise ValueError(f"image encoding {encoding!r}; expected raw, png or jpeg")
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
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
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


def _to_square(image: Image.Image, rules: ImageRules) -> Pixels | Problem:
    image.draft(None, (rules.size * _DRAFT_MARGIN, rules.size * _DRAFT_MARGIN))
    image.load()
    upright = _upright(image)
    if upright.has_transparency_data:
        return _fit(upright.convert("RGBA"), rules)
    if upright.mode.startswith(("I", "F")):
        grey = _grey_from_wide(upright)
        if isinstance(grey, Problem):
            return grey
        upright = grey
    # Resized in its own mode a grey picture costs a third; palettes and bitmaps cannot be.
    return _fit(upright if upright.mode in {"L", "RGB"} else upright.convert("RGB"), rules)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # Broken metadata says nothing about the orientation; the pixels are fine.
        return image


def _grey_from_wide(image: Image.Image) -> Image.Image | Problem:
    """16-bit greys, which Pillow itself would clip at 255, scaled to 8 bits."""
    values = np.asarray(image)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 0xFFFF:
        return Problem(Reason.UNREADABLE_PICTURE, f"pixels of mode {image.mode} beyond 16 bits")
    return Image.fromarray((values.astype(np.uint32) * 255 // 0xFFFF).astype(np.uint8))


def _fit(image: Image.Image, rules: ImageRules) -> Pixels:
    """Square RGB pixels of `image`, which is L, RGB or RGBA."""
    size = rules.size
    box = None
    scaled = (size, size)
    if rules.fit == "letterbox":
        longest = max(image.size)
        width, height = (max(1, round(side * size / longest)) for side in image.size)
        scaled = (width, height)
    elif rules.fit == "crop":
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
