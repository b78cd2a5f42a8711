"""How large, how fast and how faithful each way to store a picture is, on real pictures at several sizes.

Run from the project's root: python benchmarks/stored_pictures.py SOURCE [--num-pictures 300]
Times are of one processor (CPU time, so that what else runs on the machine does not count), median of repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import chain, islice

import numpy as np

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.images import (
    JPEG_QUALITY,
    WEBP_QUALITY,
    ImageRules,
    Pixels,
    decode_image,
    decode_stored,
    encode_stored,
)
from mlim_ray.data.sources import open_source, resolve_prepare_config

SIZES = (32, 64, 112, 224)
ENCODINGS = ("raw", "png", "jpeg", "webp")
REPEATS = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a source of pictures with at least 224 pixels a side")
    parser.add_argument("--num-pictures", type=int, default=300)
    arguments = parser.parse_args()
    encoded = list(islice(pictures(arguments.source), arguments.num_pictures))
    print(f"{len(encoded)} pictures of {arguments.source}; jpeg {JPEG_QUALITY}, webp {WEBP_QUALITY}\n")
    print("| size | encoding | bytes a picture | encode ms | decode ms | PSNR dB, mean | lowest |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        decoded = [decode_image(picture, ImageRules(size)) for picture in encoded]
        pixels = [picture for picture in decoded if isinstance(picture, np.ndarray)]
        for encoding in ENCODINGS:
            print(row(pixels, size, encoding))


def pictures(source: str) -> chain[bytes]:
    """The encoded pictures of a source, in its order."""
    opened = open_source(source, resolve_prepare_config(PrepareConfig(), max(SIZES)))
    batches = chain.from_iterable(opened.read(part) for part in opened.slices())
    return chain.from_iterable((r.image for r in batch if isinstance(r.image, bytes)) for batch in batches)


def row(pixels: list[Pixels], size: int, encoding: str) -> str:
    """One line of the table."""
    stored = [encode_stored(picture, encoding) for picture in pixels]
    encode_ms = milliseconds(lambda: [encode_stored(picture, encoding) for picture in pixels], len(pixels))
    # Added up, because a raw picture is only a view until it is read.
    decode_ms = milliseconds(lambda: [decode_stored(data, size, encoding).max() for data in stored], len(pixels))
    ratios = [psnr(decode_stored(data, size, encoding), picture) for data, picture in zip(stored, pixels, strict=True)]
    quality = "exact | exact" if min(ratios) == np.inf else f"{statistics.mean(ratios):.1f} | {min(ratios):.1f}"
    num_bytes = sum(map(len, stored)) / len(stored)
    return f"| {size} | {encoding} | {num_bytes:,.0f} | {encode_ms:.3f} | {decode_ms:.3f} | {quality} |"


def milliseconds(work: Callable[[], object], count: int) -> float:
    """CPU milliseconds for each of `count` pictures."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times) / count * 1e3


def psnr(given: Pixels, expected: Pixels) -> float:
    """Peak signal to noise in decibels; infinite for equal pictures."""
    error = float(np.mean((given.astype(np.float64) - expected) ** 2))
    return float(np.inf) if error == 0 else 10 * float(np.log10(255**2 / error))


if __name__ == "__main__":
    main()
