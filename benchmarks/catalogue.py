"""Sources of any size for benchmarks: a few hundred pictures again and again, each time under a key of its own.

Making records must cost next to nothing beside reading them, and records must be alike whatever their number; both
would not hold for pictures that are drawn one by one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.record import ROOT
from mlim_ray.data.synthetic import generate

REAL_SET = ROOT.parent / "shared" / "data" / "fashion224"
_REAL_SIZE = 224
_POOL_RECORDS = 2_000
_FILE_RECORDS = 50_000
_GROUP_RECORDS = 1_000
_SMALL_SIDE = 64


def write_catalogue(folder: str, num_records: int, image_size: int) -> str:
    """A folder of Parquet files with key, image and text; one that is there already is taken as it is.

    Pictures are those of the real set beside the project where they are and have that size, else generated ones: JPEG,
    or PNG up to 64 pixels.
    """
    out = Path(folder) / f"catalogue-{image_size}px-{num_records}"
    if out.is_dir():
        return str(out)
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    pool = list(_pool(min(num_records, _POOL_RECORDS), image_size))
    for number, start in enumerate(range(0, num_records, _FILE_RECORDS)):
        rows = range(start, min(start + _FILE_RECORDS, num_records))
        with pq.ParquetWriter(part / f"part-{number:05d}.parquet", _SCHEMA, compression={"image": "none"}) as writer:
            for first in range(rows.start, rows.stop, _GROUP_RECORDS):
                writer.write_table(_records(range(first, min(first + _GROUP_RECORDS, rows.stop)), pool))
    os.replace(part, out)
    return str(out)


_SCHEMA = pa.schema([("key", pa.string()), ("image", pa.binary()), ("text", pa.string())])


def _records(numbers: range, pool: list[tuple[bytes, str]]) -> pa.Table:
    chosen = [pool[number % len(pool)] for number in numbers]
    keys = [f"record-{number:09d}" for number in numbers]
    return pa.table([keys, [image for image, _ in chosen], [text for _, text in chosen]], schema=_SCHEMA)


def _pool(num_records: int, image_size: int) -> Iterator[tuple[bytes, str]]:
    if image_size == _REAL_SIZE and REAL_SET.is_dir():
        table = pq.read_table(sorted(REAL_SET.glob("*.parquet")), columns=["image", "text"]).slice(0, num_records)
        yield from zip(table["image"].to_pylist(), table["text"].to_pylist(), strict=True)
        return
    table = generate(0, num_records, num_records=num_records, image_size=image_size)
    for image, text in zip(table["image"].to_pylist(), table["text"].to_pylist(), strict=True):
        yield (image if image_size <= _SMALL_SIDE else _as_jpeg(image)), text


def _as_jpeg(encoded: bytes) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        image.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()
