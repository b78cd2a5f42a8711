"""What encoded pictures claim, read from their structure before any decoder sees them.

Decoders do what a file asks for: a few bytes can ask for gigabytes of pixels, hours of JPEG scans or
millions of chunks. So the few fields that decide about work are read here first and bounded, metadata that no
decoder needs is left out of PNG and JPEG, and it is known whether a file ends before its declared end.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from mlim_ray.data.rejection import Problem, Reason

MAX_SCANS = 100
"""scans of a JPEG; honest ones have about 10, and libtiff draws the same line"""
MAX_PARTS = 65_536
"""chunks, blocks, segments or strips of a picture (our choice: honest ones have fewer than 10,000)"""
MAX_TABLE_BYTES = 1_000_000
"""of a JPEG's tables before its pixels; honest ones take less than 10,000"""

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Chunks that decide about pixels. The rest is text, colour profiles and animation, which may be compressed bombs.
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row of each pass of an interlaced PNG, and the steps to the next.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xfe])", re.DOTALL)
# Baseline, extended and progressive with Huffman codes: what browsers show. Arithmetic codes and lossless are not.
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_JPEG_OTHER_FRAMES = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_JPEG_TABLES = frozenset((0xC4, 0xDB, 0xDC, 0xDD))
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_TIFF_UNIT_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_CODES = {3: "H", 4: "L", 16: "Q"}
# None, LZW, JPEG, deflate and PackBits. Of fax codes a broken one writes a line of log for every row.
_TIFF_COMPRESSIONS = frozenset((1, 5, 7, 8, 32773, 32946))
_WIDTH, _LENGTH, _COMPRESSION, _STRIP_OFFSETS, _STRIP_BYTES = 256, 257, 259, 273, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_TIFF_SIZES = (_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH)


@dataclass(frozen=True)
class Container:
    """An encoded picture as far as its structure tells."""

    format: str
    """as Pillow calls it"""
    width: int
    height: int
    max_pixels: int
    """the largest surface that decoding asks for: the picture's, or that of a tile"""
    is_complete: bool
    """whether the file reaches its declared end"""
    encoded: bytes
    """what a decoder has to see"""


class _Ends(Exception):
    """The file ends before its header does."""


def open_container(encoded: bytes) -> Container | Problem:
    """The structure of `encoded`, one of the allowed formats, or what is wrong with it. Decodes nothing.

    Takes time and memory in proportion to MAX_PARTS and the bytes at most.
    """
    for magic, read in _FORMATS:
        if encoded.startswith(magic):
            try:
                return read(encoded)
            except (_Ends, struct.error, IndexError):
                return Problem(Reason.TRUNCATED_PICTURE, f"{len(encoded)} bytes end within the header")
    return Problem(Reason.UNREADABLE_PICTURE, f"no picture of a known format ({', '.join(FORMATS)})")


def png_lacks_rows(encoded: bytes) -> bool:
    """Whether the coded pixels of a PNG end before its last row; they are decompressed to know."""
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", encoded, 16)
    expected = 0
    for left, top, step, down in _ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // step), -(-(height - top) // down)
        if columns > 0:
            expected += rows * (1 + (columns * depth * _PNG_CHANNELS[colour] + 7) // 8)
    place, inflater = 8, zlib.decompressobj()
    while expected > 0 and not inflater.eof and place + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        if kind == b"IDAT" and length > 0:
            expected -= len(inflater.decompress(encoded[place + 8 : place + 8 + length], expected))
        place += 12 + length
    return expected > 0


def _png(encoded: bytes) -> Container | Problem:
    width, height = struct.unpack_from(">II", encoded, 16)
    if encoded[8:16] != b"\x00\x00\x00\x0dIHDR":
        return _broken("a PNG that does not begin with its header")
    kept, place, is_complete = [_PNG_MAGIC], 8, False
    for _ in range(MAX_PARTS):
        if place + 12 > len(encoded):
            break
        length, kind = struct.unpack_from(">I4s", encoded, place)
        end = place + 12 + length
        if kind in _PNG_KEPT:
            chunk = encoded[place:end]
            kept.append(chunk)
            # Pillow does not check the sums of pixel data.
            if len(chunk) == 12 + length and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                return _broken(f"wrong checksum of the {kind.decode()} chunk at byte {place}")
        place = end
        if kind == b"IEND":
            is_complete = True
            break
    else:
        return _too_complex("chunks")
    return Container("PNG", width, height, width * height, is_complete and place <= len(encoded), b"".join(kept))


def _jpeg(encoded: bytes) -> Container | Problem:
    kept, place, num_bytes, size, has_exif = [b"\xff\xd8"], 2, 0, None, False
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(encoded, place)
        if found is None:
            raise _Ends
        kind, place = found[1][0], found.end()
        if kind in _JPEG_BARE:
            continue
        if kind == 0xD9:
            return _broken("a JPEG without pixels")
        length = int.from_bytes(encoded[place : place + 2], "big")
        segment = encoded[place - 2 : place + length]
        if len(segment) < 4 or len(segment) < 2 + length:
            raise _Ends
        if length < 2:
            return _broken(f"a JPEG segment without length at byte {place}")
        if kind in _JPEG_OTHER_FRAMES:
            return _broken("an arithmetic, lossless or hierarchical JPEG; expected baseline or progressive")
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", segment, 5)
            size = (width, height)
        if kind == 0xDA:
            break
        is_exif = kind == 0xE1 and segment.startswith(b"Exif\0\0", 4) and not has_exif
        has_exif = has_exif or is_exif
        if is_exif or kind in _JPEG_FRAMES or kind in _JPEG_TABLES or kind in (0xE0, 0xEE):
            kept.append(segment)
            num_bytes += len(segment)
        place += length
    else:
        return _too_complex("segments")
    if num_bytes > MAX_TABLE_BYTES:
        return Problem(Reason.TOO_COMPLEX, f"{num_bytes} bytes of tables; at most {MAX_TABLE_BYTES}")
    if size is None:
        return _broken("a JPEG without size")
    # Within coded pixels 0xFF is always followed by 0 or a restart, so this counts scans, and at worst a few more.
    end = encoded.find(b"\xff\xd9", place) + 2
    coded = encoded[place - 2 :]
    if coded.count(b"\xff\xda") > MAX_SCANS:
        # Telephones append films and more pictures: the decoder must not see what was not counted.
        coded = encoded[place - 2 : end if end > 1 else None]
        if coded.count(b"\xff\xda") > MAX_SCANS:
            return _too_complex("scans", MAX_SCANS)
    kept.append(coded)
    return Container("JPEG", *size, size[0] * size[1], end > 1, b"".join(kept))


def _gif(encoded: bytes) -> Container | Problem:
    width, height, flags = struct.unpack_from("<HHB", encoded, 6)
    place, num_blocks = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), 0
    while encoded[place] != 0x2C:
        kind = encoded[place]
        if kind == 0x3B:
            return _broken("a GIF without a frame")
        # As Pillow does, bytes between blocks are passed over.
        place += 1
        num_blocks += 1
        if kind == 0x21:
            place += 1
            while length := encoded[place]:
                place += 1 + length
                num_blocks += 1
                if num_blocks > MAX_PARTS:
                    return _too_complex("blocks")
            place += 1
        if num_blocks > MAX_PARTS:
            return _too_complex("blocks")
    left, top, right, bottom, flags = struct.unpack_from("<HHHHB", encoded, place + 1)
    # A frame may be larger than the screen; then so is the picture.
    width, height = max(width, left + right), max(height, top + bottom)
    place += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while place < len(encoded) and (length := encoded[place]):
        place += 1 + length
        num_blocks += 1
        # Full blocks of the largest file that is read stay below.
        if num_blocks > 8 * MAX_PARTS:
            return _too_complex("blocks", 8 * MAX_PARTS)
    return Container("GIF", width, height, width * height, place < len(encoded), encoded)


def _webp(encoded: bytes) -> Container | Problem:
    kind, num_bytes = encoded[12:16], 8 + int.from_bytes(encoded[4:8], "little")
    if not b"WEBP".startswith(encoded[8:12]):
        return _broken("a RIFF file that is no WebP")
    if len(encoded) < 30:
        raise _Ends
    if kind == b"VP8X":
        width, height = (int.from_bytes(encoded[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(encoded[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", encoded, 26))
    else:
        return _broken("a WebP that does not begin with a picture")
    return Container("WEBP", width, height, width * height, num_bytes <= len(encoded), encoded)


def _bmp(encoded: bytes) -> Container | Problem:
    start, header = struct.unpack_from("<II", encoded, 10)
    if header not in (12, 40, 52, 56, 64, 108, 124):
        return _broken(f"a BMP with a header of {header} bytes")
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", encoded, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", encoded, 18)
        height = abs(height)
    if width < 0 or bits not in (1, 4, 8, 16, 24, 32):
        return _broken(f"a BMP of width {width} and {bits} bits a pixel")
    is_run_length = compression in (1, 2)
    # Runs are decoded in Python, a pair of bytes at a time; no picture needs more than two bytes a pixel.
    if is_run_length and len(encoded) > 4 * width * height + MAX_PARTS:
        return Problem(Reason.TOO_COMPLEX, f"{len(encoded)} bytes of runs for {width} x {height} pixels")
    num_bytes = 0 if is_run_length else (width * bits + 31) // 32 * 4 * height
    if is_run_length:
        num_bytes = int.from_bytes(encoded[34:38], "little")
    return Container("BMP", width, height, width * height, start + num_bytes <= len(encoded), encoded)


def _tiff(encoded: bytes) -> Container | Problem:
    order = "<" if encoded.startswith(b"II") else ">"
    is_big = encoded[2:4] in (b"+\0", b"\0+")
    word, entry, num_entries = ("Q", "HHQ", "Q") if is_big else ("L", "HHL", "H")
    (directory,) = struct.unpack_from(order + word, encoded, 8 if is_big else 4)
    if directory + 2 > len(encoded):
        raise _Ends
    (count,) = struct.unpack_from(order + num_entries, encoded, directory)
    place = directory + (8 if is_big else 2)
    entry_bytes, value_bytes = (20, 8) if is_big else (12, 4)
    sizes, places = dict.fromkeys(_TIFF_SIZES, 0), dict[int, tuple[int, ...]]()
    if count > MAX_PARTS:
        return _too_complex("tags")
    for _ in range(count):
        tag, kind, num_values = struct.unpack_from(order + entry, encoded, place)
        unit = _TIFF_UNIT_BYTES.get(kind, 1)
        if unit > 1 and num_values > MAX_PARTS:
            return _too_complex("strips or values of a tag")
        at = place + entry_bytes - value_bytes
        place += entry_bytes
        if tag in _TIFF_SIZES or tag == _COMPRESSION:
            if num_values != 1 or kind not in _TIFF_CODES or (kind == 16 and not is_big):
                return _broken(f"tag {tag} is no single whole number")
            (value,) = struct.unpack_from(order + _TIFF_CODES[kind], encoded, at)
            if tag == _COMPRESSION and value not in _TIFF_COMPRESSIONS:
                return _broken(f"TIFF compression {value}; expected none, LZW, JPEG, deflate or PackBits")
            # Of a tag that comes twice, readers differ in which one counts.
            sizes[tag] = max(sizes.get(tag, 0), value)
        elif tag in (_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES) and kind in _TIFF_CODES:
            code = f"{order}{num_values}{_TIFF_CODES[kind]}"
            if unit * num_values > value_bytes:
                (at,) = struct.unpack_from(order + word, encoded, at)
            if at + unit * num_values > len(encoded):
                raise _Ends
            places[tag] = struct.unpack_from(code, encoded, at)
    width, height, tile_width, tile_height = (sizes[tag] for tag in _TIFF_SIZES)
    if not width or not height:
        return _broken("a TIFF without width or length")
    ends = [
        offset + num_bytes
        for starts, lengths in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES))
        for offset, num_bytes in zip(places.get(starts, ()), places.get(lengths, ()), strict=False)
    ]
    max_pixels = max(width * height, tile_width * tile_height)
    return Container("TIFF", width, height, max_pixels, max(ends, default=0) <= len(encoded), encoded)


def _broken(detail: str) -> Problem:
    return Problem(Reason.UNREADABLE_PICTURE, detail)


def _too_complex(parts: str, maximum: int = MAX_PARTS) -> Problem:
    return Problem(Reason.TOO_COMPLEX, f"more than {maximum} {parts}")


_FORMATS = (
    (b"\xff\xd8\xff", _jpeg),
    (_PNG_MAGIC, _png),
    (b"RIFF", _webp),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"BM", _bmp),
    # The middle two are wrong, but written by some and read by Pillow.
    *((magic, _tiff) for magic in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")),
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""the allowed formats, as Pillow calls them; JPEG includes MPO, the several-picture form of telephones"""
