"""Pictures that the tests make, and the pieces that formats are built from."""

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


def png(
    width: int, height: int, body: bytes, *, depth: int = 8, colour: int = 0, before: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG (grey of 8 bits if not told otherwise) with any header and any compressed body."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + before + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_of(values: np.ndarray, colour: int, depth: int, before: bytes = b"") -> bytes:
    """A PNG of integers [H, W, channels], of `depth` 8 or 16 bits."""
    height, width = values.shape[:2]
    rows = values.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(width, height, zlib.compress(body), depth=depth, colour=colour, before=before)


def black_png(width: int, height: int) -> bytes:
    """A small file that really holds all its black pixels."""
    squeezer = zlib.compressobj(9)
    row = bytes(width + 1)
    return png(width, height, b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush())


def gigapixel_header() -> bytes:
    """A few bytes that claim 65,535 x 65,535 pixels."""
    return png(65_535, 65_535, b"")[:62]


def compressed_144_megapixels() -> bytes:
    """A small file that really holds 12,000 x 12,000 black pixels."""
    return black_png(12_000, 12_000)


def jpeg_segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, 2 + len(data)) + data


def jpeg_with(segments: bytes, image: Image.Image | None = None, **options: object) -> bytes:
    """A JPEG with more segments right behind its first marker."""
    whole = encoded(noise() if image is None else image, "JPEG", **options)
    return whole[:2] + segments + whole[2:]


def jpeg_of_scans(num_scans: int, side: int = 64, *, flat: bool = False) -> bytes:
    """A progressive JPEG, of noise or of one colour, whose last scan comes again and again."""
    image = Image.new("RGB", (side, side), "teal") if flat else noise(side, side)
    whole = encoded(image, "JPEG", progressive=True)
    last = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + last * num_scans + b"\xff\xd9"


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    whole = encoded(noise(), "JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def turned(orientation: int, image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """A picture whose EXIF tells how it has to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **options)


def tiff(tags: dict[int, tuple[int, int, int]], body: bytes = b"") -> bytes:
    """A TIFF of one directory; tag -> type, number of values, value or offset. The body begins at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def grey_tiff_tags(width: int, height: int, **more: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    """Tags of an uncompressed 8-bit grey picture in one strip; `more` as t<number>=entry."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, width * height)}
    return tags | {int(name[1:]): entry for name, entry in more.items()}


def gif(screen: tuple[int, int], frame: tuple[int, int], codes: bytes = b"\x02\x02\x4c\x01\x00") -> bytes:
    """A GIF of one frame without extensions, two grey colours."""
    head = struct.pack("<6sHHBBB", b"GIF89a", *screen, 0x80, 0, 0) + bytes(3) + b"\xff\xff\xff"
    return head + struct.pack("<BHHHHB", 0x2C, 0, 0, *frame, 0) + codes + b";"


def webp_of_canvas(width: int, height: int) -> bytes:
    """A WebP whose canvas claims another size than its frame has."""
    whole = encoded(noise().convert("RGBA"), "WEBP", lossless=True, exif=b"Exif\0\0II*\0" + bytes(8))
    assert whole[12:16] == b"VP8X"
    claim = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return whole[:24] + claim + whole[30:]


def bmp_of_size(width: int, height: int) -> bytes:
    """A BMP whose header claims another size."""
    whole = encoded(noise(), "BMP")
    return whole[:18] + struct.pack("<ii", width, height) + whole[26:]


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    """A grey BMP in the run-length code of 8 bits."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    start = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start) + info + palette + runs
