"""Ways to damage bytes, the same for one seed."""

import random
import struct
from collections.abc import Sequence

from tests.data.pictures import png_chunk

_EDGES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0")


def damaged(good: Sequence[bytes], rng: random.Random) -> bytes:
    """One of `good` after a few flips, cuts, insertions, splices with another one, or numbers at the edge of a type."""
    data = bytearray(rng.choice(good))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        # Headers and footers decide about most.
        place = rng.choice((rng.randrange(80), rng.randrange(len(data)), len(data) - 1 - rng.randrange(1_500)))
        place = min(max(place, 0), len(data) - 1)
        kind = rng.randrange(8)
        if kind < 2:
            data[place] = rng.randrange(256)
        elif kind == 2:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del data[place : place + rng.randrange(1, 50)]
        elif kind == 4:
            data[place:place] = rng.randbytes(rng.randrange(1, 20))
        elif kind == 5:
            other = rng.choice(good)
            data[place:] = other[rng.randrange(len(other)) :]
        elif kind == 6:
            edge = rng.choice(_EDGES)
            data[place : place + len(edge)] = edge
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


def with_right_checksums(data: bytes) -> bytes:
    """A damaged PNG whose chunks have the right sums again, so that the damage reaches what lies behind them."""
    mended, place = data[:8], 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if place + 12 + length > len(data):
            break
        mended += png_chunk(kind, data[place + 8 : place + 8 + length])
        place += 12 + length
    return mended + data[place:]
