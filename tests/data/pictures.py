"""Pictures that the tests make, good and bad."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, body: bytes) -> bytes:
    """A grey 8-bit PNG with any header and any (compressed) body."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def gigapixel_header() -> bytes:
    """A few bytes that claim 65,535 x 65,535 pixels."""
    return png(65_535, 65_535, b"")[:62]


def compressed_144_megapixels() -> bytes:
    """A small file that really holds 12,000 x 12,000 black pixels."""
    squeezer = zlib.compressobj(9)
    row = bytes(12_001)
    body = b"".join(squeezer.compress(row) for _ in range(12_000)) + squeezer.flush()
    return png(12_000, 12_000, zlib.compress(body, 9)) if len(body) < 1_000 else png(12_000, 12_000, body)


BAD: dict[str, tuple[bytes | None, str]] = {
    "null": (None, "missing_picture"),
    "zero bytes": (b"", "missing_picture"),
    "web page": (b"<html><body>404</body></html>", "unreadable_picture"),
    "vector picture": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unreadable_picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n", "unreadable_picture"),
    "random bytes": (bytes(range(256)) * 8, "unreadable_picture"),
    "truncated jpeg": (encoded(noise(), "JPEG")[:700], "truncated_picture"),
    "truncated png": (encoded(noise())[:1_500], "truncated_picture"),
    "png without data": (png(40, 30, b""), "truncated_picture"),
    "flipped png bytes": (encoded(noise()).replace(b"IDAT", b"IDAX", 1), "unreadable_picture"),
    "gigapixel header": (gigapixel_header(), "too_many_pixels"),
    "144 megapixels": (compressed_144_megapixels(), "too_many_pixels"),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "too_small"),
    "thin line": (encoded(Image.new("RGB", (400, 3))), "too_small"),
}
"""What it is: the bytes, and the reason they are rejected for."""
