"""Records that a catalogue should not hold, and what becomes of each: for the core and for a whole prepare."""

from __future__ import annotations

import datetime
import decimal
import io
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.rejection import Problem, Reason
from tests.data.pictures import (
    black_png,
    bmp_of_size,
    encoded,
    gif,
    gigapixel_header,
    grey_tiff_tags,
    jpeg_of_scans,
    jpeg_of_size,
    jpeg_segment,
    jpeg_with,
    noise,
    png,
    png_chunk,
    png_of,
    run_length_bmp,
    tiff,
    turned,
    webp_of_canvas,
)

ACCEPTED = None


@dataclass(frozen=True)
class Hostile:
    """One record: what differs from a good one, and the reason it is rejected for; None where it is accepted."""

    change: dict[str, Any]
    reason: Reason | None

    def record(self, name: str = "k", row: int = 0) -> RawRecord:
        """The record, its other values good, with `name` as key where the key is not what is hostile."""
        values = {"key": name, "image": encoded(noise()), "text": "A red shirt", "split": "train", **self.change}
        return RawRecord(source="hostile", row=row, **values)


def _cut(whole: bytes, ratio: float = 0.5) -> bytes:
    return whole[: int(len(whole) * ratio)]


def _flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]


def _scrambled(whole: bytes, start: int) -> bytes:
    return whole[:start] + bytes(255 - byte for byte in whole[start:])


def _big_noise(kind: str, **options: object) -> bytes:
    return encoded(noise(120, 90), kind, **options)


def _frames(count: int, kind: str, size: tuple[int, int] = (20, 20), **options: object) -> bytes:
    frames = [Image.new("RGB", size, (255 - i % 256, i % 256, i // 2 % 256)) for i in range(count)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def _with_chunk(kind: bytes, data: bytes) -> bytes:
    whole = encoded(noise())
    return whole[:33] + png_chunk(kind, data) + whole[33:]


def _interlaced(size: int = 16) -> bytes:
    """A PNG in the order of Adam7, grey noise, each row of a pass after a filter byte."""
    values = np.random.default_rng(0).integers(0, 256, (size, size), np.uint8)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    body = b""
    for left, top, step, down in passes:
        for row in range(top, size, down):
            body += b"\0" + values[row, left::step].tobytes()
    return png(size, size, zlib.compress(body), interlace=1)


def _half_palette() -> bytes:
    palette = png_chunk(b"PLTE", bytes(range(9)))
    return png(40, 30, zlib.compress(bytes(41 * 15)), colour=3, before=palette)


def _two_headers() -> bytes:
    """A PNG that changes its mind about its size."""
    second = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    return png(40, 30, zlib.compress(bytes(41 * 30)), before=second)


def _polyglot() -> bytes:
    """A good GIF that is also a ZIP and a script."""
    return encoded(noise(), "GIF") + b"<script>alert(1)</script>PK\x05\x06" + bytes(18)


def _tiff_pages(count: int) -> bytes:
    pages = [Image.new("L", (10, 10), i % 256) for i in range(count)]
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def _endless_tiff() -> bytes:
    """A TIFF whose next directory is its first."""
    whole = tiff(grey_tiff_tags(10, 10), bytes(100))
    return whole[:-4] + struct.pack("<I", 108)


def _sixteen_bit_tiff(order: str) -> bytes:
    whole = tiff(
        grey_tiff_tags(10, 10, t258=(3, 1, 16), t279=(4, 1, 200)), np.full(100, 40_000, order + "u2").tobytes()
    )
    if order == "<":
        return whole
    swapped = b"MM" + struct.pack(">HI", 42, 208) + whole[8:208] + struct.pack(">H", 9)
    for place in range(210, 210 + 9 * 12, 12):
        tag, kind, count, value = struct.unpack_from("<HHII", whole, place)
        swapped += (
            struct.pack(">HHIHH", tag, kind, count, value, 0)
            if kind == 3
            else struct.pack(">HHII", tag, kind, count, value)
        )
    return swapped + bytes(4)


def _exif_of(count: int) -> bytes:
    return jpeg_with(b"".join(jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0") for _ in range(count)))


def _arithmetic() -> bytes:
    return encoded(noise(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1)


def _with_film() -> bytes:
    """What some telephones write: a good JPEG, then a film in which a start of scan appears by chance."""
    return encoded(noise(), "JPEG") + b"\xff\xda\x12" * 5_000


def _pictures() -> dict[str, tuple[Any, Reason | None]]:
    missing, unreadable, truncated = Reason.MISSING_PICTURE, Reason.UNREADABLE_PICTURE, Reason.TRUNCATED_PICTURE
    too_many, complex_, small = Reason.TOO_MANY_PIXELS, Reason.TOO_COMPLEX, Reason.TOO_SMALL
    jpeg, progressive = _big_noise("JPEG"), _big_noise("JPEG", progressive=True)
    whole_png, half = encoded(noise(120, 90)), encoded(noise(120, 90))
    tiny_bomb = zlib.compress(bytes(50_000_000), 9)
    tile = {322: (4, 1, 30_000), 323: (4, 1, 30_000), 324: (4, 1, 8), 325: (4, 1, 100)}
    return {
        # No picture at all.
        "null": (None, missing),
        "zero bytes": (b"", missing),
        "one byte": (b"\xff", unreadable),
        "spaces": (b" " * 500, unreadable),
        "web page": (b"<html><body>404</body></html>", unreadable),
        "json error": (b'{"error": "not found"}', unreadable),
        "vector picture": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', unreadable),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n", unreadable),
        "pdf": (b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj", unreadable),
        "random bytes": (bytes(range(256)) * 8, unreadable),
        "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", unreadable),
        "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", unreadable),
        "icon": (encoded(noise(32, 32), "ICO"), unreadable),
        "jpeg 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(40), unreadable),
        "text that begins like a bitmap": (b"BMW 320d, blue, one owner, full service history", unreadable),
        "sound in a riff": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), unreadable),
        # Cut short.
        "truncated jpeg": (_cut(jpeg), truncated),
        "truncated progressive jpeg": (_cut(progressive), truncated),
        "jpeg without its end": (jpeg[:-2], truncated),
        "jpeg cut in its header": (jpeg[:100], truncated),
        "jpeg of its first marker": (jpeg[:3], truncated),
        "truncated png": (_cut(whole_png), truncated),
        "png cut in its header": (whole_png[:20], truncated),
        "png without data": (png(40, 30, b""), truncated),
        "png of half the rows": (png(40, 30, zlib.compress(bytes(41 * 15))), truncated),
        "palette png of half the rows": (_half_palette(), truncated),
        "interlaced png cut": (_cut(_interlaced(200), 0.6), truncated),
        "truncated gif": (_cut(_big_noise("GIF")), truncated),
        "gif cut in its palette": (_big_noise("GIF")[:50], truncated),
        "truncated webp": (_cut(_big_noise("WEBP")), truncated),
        "webp of its header": (_big_noise("WEBP")[:20], truncated),
        "truncated bmp": (_cut(_big_noise("BMP")), truncated),
        "truncated tiff": (_cut(_big_noise("TIFF")), truncated),
        "tiff without its directory": (encoded(noise(), "TIFF", compression="tiff_lzw")[:8], truncated),
        "tiff strips beyond the end": (tiff(grey_tiff_tags(10, 10, t273=(4, 1, 50_000)), bytes(100)), truncated),
        "tiff of more tags than bytes": (tiff(grey_tiff_tags(10, 10)).replace(b"\x09\0", b"\xff\xff", 1), truncated),
        "big tiff that points behind its end": (b"II+\0\x08\0\0\0" + b"\xff" * 7 + b"\x7f", truncated),
        # Broken.
        "png chunk of another name": (half.replace(b"IDAT", b"IDAX", 1), unreadable),
        "png with a wrong checksum": (_flipped(half, 200), unreadable),
        "png with broken zlib": (png(40, 30, b"\x78\x9c" + b"\xff" * 60), unreadable),
        "png of no known depth": (png(40, 30, zlib.compress(bytes(3_000)), depth=7), unreadable),
        "jpeg without tables": (jpeg.replace(b"\xff\xdb", b"\xff\xfe"), unreadable),
        "jpeg without size": (jpeg.replace(b"\xff\xc0", b"\xff\xfe"), unreadable),
        "arithmetic jpeg": (_arithmetic(), unreadable),
        "two-channel jpeg": (
            jpeg.replace(b"\xff\xc0\x00\x11\x08\x00\x5a\x00\x78\x03", b"\xff\xc0\x00\x11\x08\x00\x5a\x00\x78\x02"),
            unreadable,
        ),
        "gif without a frame": (gif((20, 20), (20, 20))[:19] + b";", unreadable),
        "webp of noise": (_scrambled(_big_noise("WEBP"), 30), unreadable),
        "bmp of unknown compression": (
            encoded(noise(), "BMP")[:30] + b"\x63" + encoded(noise(), "BMP")[31:],
            unreadable,
        ),
        "bmp of negative width": (bmp_of_size(-40, 30), unreadable),
        "tiff of unknown compression": (tiff(grey_tiff_tags(10, 10, t259=(3, 1, 50_001)), bytes(100)), unreadable),
        "tiff of floats": (encoded(Image.new("F", (20, 20), 0.5), "TIFF"), unreadable),
        "tiff of 32 bits": (encoded(Image.new("I", (20, 20), 1_000_000), "TIFF"), unreadable),
        "tiff of zstd": (encoded(noise(), "TIFF", compression="zstd"), unreadable),
        "tiff of lzma": (encoded(noise(), "TIFF", compression="lzma"), unreadable),
        "tiff of a fax": (encoded(noise().convert("1"), "TIFF", compression="group4"), unreadable),
        "tiff of two widths in one tag": (tiff(grey_tiff_tags(10, 10, t256=(3, 2, 10))), unreadable),
        "tiff without size": (tiff({258: (3, 1, 8)}), unreadable),
        # More pixels than allowed.
        "gigapixel header": (gigapixel_header(), too_many),
        "png of the largest size": (png(2**31 - 1, 2**31 - 1, b""), too_many),
        "37 megapixels": (black_png(6_100, 6_100), too_many),
        "250 megapixels": (png(15_900, 15_900, tiny_bomb), too_many),
        "jpeg header of 65,500 x 65,500": (jpeg_of_size(65_500, 65_500), too_many),
        "gif of a small screen and a huge frame": (gif((1, 1), (60_000, 60_000)), too_many),
        "webp of a huge canvas": (webp_of_canvas(16_000, 16_000), too_many),
        "bmp of a huge header": (bmp_of_size(40_000, -40_000), too_many),
        "tiff of a huge header": (tiff(grey_tiff_tags(60_000, 60_000)), too_many),
        "tiff of one huge tile": (tiff(grey_tiff_tags(10, 10) | tile, bytes(100)), too_many),
        "png with a second, huge header": (_two_headers(), too_many),
        # Far more work than pixels.
        "jpeg of 5,000 scans": (jpeg_of_scans(5_000), complex_),
        "jpeg of 70,000 segments": (jpeg_with(jpeg_segment(0xFE, b"") * 70_000), complex_),
        "jpeg of 2 MB of tables": (jpeg_with(jpeg_segment(0xDB, (b"\0" + b"\1" * 64) * 1_000) * 31), complex_),
        "png of 70,000 chunks": (whole_png[:33] + png_chunk(b"prVt", b"") * 70_000 + whole_png[33:], complex_),
        "png of 70,000 empty data chunks": (
            whole_png[:33] + png_chunk(b"IDAT", b"") * 70_000 + whole_png[33:],
            complex_,
        ),
        "gif of 70,000 comments": (
            gif((9, 9), (9, 9))[:19] + b"!\xfe\x01a\0" * 70_000 + gif((9, 9), (9, 9))[19:],
            complex_,
        ),
        "tiff of 100,000 strips": (tiff(grey_tiff_tags(10, 10, t273=(4, 100_000, 8)), bytes(100)), complex_),
        "bmp of idle runs": (run_length_bmp(16, 16, b"\x01\x07" * 60_000), complex_),
        # Too small.
        "one pixel": (encoded(Image.new("RGB", (1, 1))), small),
        "thin line": (encoded(Image.new("RGB", (400, 3))), small),
        "tracking gif": (gif((1, 1), (1, 1)), small),
        # Odd, and read.
        "cmyk jpeg": (encoded(noise().convert("CMYK"), "JPEG"), ACCEPTED),
        "grey with alpha": (encoded(noise().convert("LA")), ACCEPTED),
        "palette with alpha": (encoded(noise().convert("P"), transparency=3), ACCEPTED),
        "one bit": (encoded(noise().convert("1")), ACCEPTED),
        "16-bit grey": (png_of(np.arange(600).reshape(20, 30, 1) * 100, 0, 16), ACCEPTED),
        "16-bit colours with alpha": (png_of(np.full((20, 30, 4), 40_000), 6, 16), ACCEPTED),
        "16-bit tiff": (_sixteen_bit_tiff("<"), ACCEPTED),
        "16-bit tiff of the other order": (_sixteen_bit_tiff(">"), ACCEPTED),
        "300 frames": (_frames(300, "GIF"), ACCEPTED),
        "animated webp": (_frames(30, "WEBP"), ACCEPTED),
        "animated png": (_frames(30, "PNG"), ACCEPTED),
        "several pictures of a telephone": (_frames(3, "MPO"), ACCEPTED),
        "tiff of 500 pages": (_tiff_pages(500), ACCEPTED),
        "tiff whose directories go round": (_endless_tiff(), ACCEPTED),
        "turned by a camera": (turned(6, noise()), ACCEPTED),
        "turned by a number that is none": (turned(77, noise()), ACCEPTED),
        "jpeg with broken exif": (jpeg_with(jpeg_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")), ACCEPTED),
        "jpeg of 20,000 exif segments": (_exif_of(20_000), ACCEPTED),
        "jpeg with a film behind": (_with_film(), ACCEPTED),
        "jpeg with garbage behind": (jpeg + bytes(range(256)) * 40, ACCEPTED),
        "jpeg with garbage between": (jpeg[:20] + b"garbage\xff\0" + jpeg[20:], ACCEPTED),
        "jpeg of many restarts": (encoded(noise(400, 400), "JPEG", restart_marker_blocks=1), ACCEPTED),
        "jpeg of 50 scans": (jpeg_of_scans(40), ACCEPTED),
        "png with a text of 20 MB": (_with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000), 9)), ACCEPTED),
        "png with a profile of 20 MB": (_with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20_000_000), 9)), ACCEPTED),
        "png with 50 MB behind its rows": (png(40, 30, tiny_bomb), ACCEPTED),
        "png without its end": (whole_png[:-12], ACCEPTED),
        "interlaced png": (_interlaced(), ACCEPTED),
        "gif that is a zip too": (_polyglot(), ACCEPTED),
        "jpeg with a profile of 6 MB": (
            jpeg_with(jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000)) * 100),
            ACCEPTED,
        ),
        "jpeg with 6 MB of comments": (jpeg_with(jpeg_segment(0xFE, bytes(65_000)) * 100), ACCEPTED),
        "jpeg whose xmp never ends": (
            jpeg_with(jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<a" * 30_000)),
            ACCEPTED,
        ),
        "jpeg of red, green and blue": (encoded(noise(), "JPEG", keep_rgb=True), ACCEPTED),
        "animated png with a picture of its own": (_frames(3, "PNG", default_image=True), ACCEPTED),
        "animated gif that goes back": (_frames(9, "GIF", disposal=3), ACCEPTED),
        "one-bit bmp": (encoded(noise().convert("1"), "BMP"), ACCEPTED),
        "bmp with alpha": (encoded(noise().convert("RGBA"), "BMP"), ACCEPTED),
        "cmyk tiff": (encoded(noise().convert("CMYK"), "TIFF"), ACCEPTED),
        "lab tiff": (encoded(Image.merge("LAB", noise().split()), "TIFF"), ACCEPTED),
        "palette tiff": (encoded(noise().convert("P"), "TIFF"), ACCEPTED),
        "one-bit tiff": (encoded(noise().convert("1"), "TIFF"), ACCEPTED),
        "grey tiff with alpha": (encoded(noise().convert("LA"), "TIFF"), ACCEPTED),
        "jpeg in a tiff": (encoded(noise(), "TIFF", compression="jpeg"), ACCEPTED),
        "very long picture": (encoded(Image.new("RGB", (8, 4_000), "red")), ACCEPTED),
        # Not bytes.
        "path as picture": ("../secret.jpg", Reason.WRONG_TYPE),
        "number as picture": (17, Reason.WRONG_TYPE),
        "nan as picture": (math.nan, Reason.WRONG_TYPE),
        "list as picture": ([1, 2, 3], Reason.WRONG_TYPE),
        "struct as picture": ({"bytes": b"", "path": None}, Reason.WRONG_TYPE),
        "pixels of floats": (np.zeros((20, 20, 3)), Reason.WRONG_TYPE),
        "pixels without colour": (np.zeros((20, 20), np.uint8), Reason.WRONG_TYPE),
        "pixels without height": (np.zeros((0, 20, 3), np.uint8), small),
        "unread picture": (Problem(Reason.PATH_OUTSIDE_FOLDER, "../x"), Reason.PATH_OUTSIDE_FOLDER),
    }


_WRONG: dict[str, Any] = {
    "nan": math.nan,
    "float": 12.5,
    "true": True,
    "list": ["a"],
    "dict": {"a": 1},
    "date": datetime.datetime(2024, 1, 1),
    "decimal": decimal.Decimal("1.5"),
    "endless integer": 10**5_000,
    "object": object(),
    "float of numpy": np.float32(1),
    "stream": io.BytesIO(b"a"),
}


def _texts() -> dict[str, tuple[Any, Reason | None]]:
    empty, invalid = Reason.EMPTY_TEXT, Reason.INVALID_UTF8
    return {
        "null": (None, empty),
        "empty": ("", empty),
        "spaces": (" \t\r\n\u00a0\u2003", empty),
        "nul bytes": ("\x00\x00", empty),
        "zero width": ("\u200b\u200d\ufeff\u2060", empty),
        "marks without a letter": ("\u0301" * 50, empty),
        "blank letters": ("\u3164\u115f\u2800", empty),
        "direction marks": ("\u202e\u2066\u200f", empty),
        "surrogate": ("lone \ud800", invalid),
        "latin 1": (b"caf\xe9", invalid),
        "utf 16": ("red shirt".encode("utf-16"), invalid),
        "nul within": ("red\x00shirt", ACCEPTED),
        "right to left": ("\u05d7\u05d5\u05dc\u05e6\u05d4 \u202eadmorder", ACCEPTED),
        "emoji": ("\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea", ACCEPTED),
        "a million marks": ("a" + "\u0301\u0323" * 500_000, ACCEPTED),
        "a megabyte": ("word " * 200_000, ACCEPTED),
        "one word of a megabyte": ("w" * 1_000_000, ACCEPTED),
        "a megabyte of spaces before": (" " * 1_000_000 + "shirt", ACCEPTED),
        "integer": (501, ACCEPTED),
        "script": ("<script>alert(1)</script>", ACCEPTED),
        "bytearray": (bytearray(b"red"), ACCEPTED),
    }


def _names() -> dict[str, tuple[str, Any, Reason | None]]:
    """Keys, labels, groups and splits: the field, its value and what becomes of it."""
    return {
        "null key": ("key", None, Reason.NULL_KEY),
        "empty key": ("key", "", Reason.NULL_KEY),
        "key of spaces": ("key", b"  ", Reason.NULL_KEY),
        "key of no utf-8": ("key", b"\xff", Reason.INVALID_UTF8),
        "key of a megabyte": ("key", "k" * 1_000_000, Reason.TOO_LONG),
        "label of a megabyte": ("label", "l" * 1_000_000, Reason.TOO_LONG),
        "label of no utf-8": ("label", b"\xff", Reason.INVALID_UTF8),
        "group of a surrogate": ("group", "\ud800", Reason.INVALID_UTF8),
        "null split": ("split", None, Reason.UNKNOWN_SPLIT),
        "unknown split": ("split", "holdout", Reason.UNKNOWN_SPLIT),
        "split of a megabyte": ("split", "s" * 1_000_000, Reason.UNKNOWN_SPLIT),
        "split of no utf-8": ("split", b"\xff", Reason.UNKNOWN_SPLIT),
        "split as number": ("split", 3, Reason.UNKNOWN_SPLIT),
        "negative key": ("key", -(2**63), ACCEPTED),
        "numpy key": ("key", np.uint64(2**64 - 1), ACCEPTED),
        "key with nul": ("key", "a\x00b", ACCEPTED),
        "key like a path": ("key", "../../etc/passwd", ACCEPTED),
        "empty label": ("label", "", ACCEPTED),
        "unread row": ("problem", Problem(Reason.MALFORMED_ROW, "3 fields; expected 4"), Reason.MALFORMED_ROW),
    }


@cache
def hostile_records() -> dict[str, Hostile]:
    """All records by what they are."""
    found = {f"picture: {name}": Hostile({"image": value}, reason) for name, (value, reason) in _pictures().items()}
    found |= {f"text: {name}": Hostile({"text": value}, reason) for name, (value, reason) in _texts().items()}
    found |= {name: Hostile({field: value}, reason) for name, (field, value, reason) in _names().items()}
    for field in ("key", "text", "label", "group", "split"):
        found |= {f"{field}: {name}": Hostile({field: value}, Reason.WRONG_TYPE) for name, value in _WRONG.items()}
    return found


HOSTILE_COLUMNS = {
    "key_column": "id",
    "image_column": "image",
    "text_column": "title",
    "label_column": "label",
    "group_column": "group",
    "split_column": "split",
}
"""Of the file below, as knobs of PrepareConfig: nothing guesses that bytes are a text or a key."""


def write_hostile_parquet(path: Path) -> dict[int, Reason | None]:
    """Write those records that Parquet can hold; row -> reason, None where it is accepted. Keys differ.

    All columns are bytes, so that they hold what is no UTF-8, but the split, which no source takes as bytes.
    """
    rows: list[dict[str, object]] = []
    reasons: dict[int, Reason | None] = {}
    for name, hostile in hostile_records().items():
        record = hostile.record(name)
        values = (record.key, record.image, record.text, record.label, record.group)
        stored = [value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value for value in values]
        is_storable = record.problem is None and not isinstance(record.image, str)
        is_storable = is_storable and isinstance(record.split, (str, type(None)))
        if is_storable and all(value is None or isinstance(value, bytes) for value in stored):
            reasons[len(rows)] = hostile.reason
            rows.append(dict(zip(HOSTILE_COLUMNS.values(), [*stored, record.split], strict=True)))
    kinds = [pa.binary()] * 5 + [pa.string()]
    schema = pa.schema(list(zip(HOSTILE_COLUMNS.values(), kinds, strict=True)))
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return reasons
