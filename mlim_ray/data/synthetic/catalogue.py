"""The generated catalogue: product cards with attributes, groups and splits, sliceable anywhere."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mlim_ray.data.synthetic.attributes import ATTRIBUTES, draw_attributes, place_records, split_groups
from mlim_ray.data.synthetic.pictures import draw_pictures
from mlim_ray.data.synthetic.titles import draw_titles

# Bounds the memory of a large slice: the temporaries of one batch of 32 px pictures take some 50 MB.
BATCH_LEVELS = 512 * 32 * 32

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("colour", pa.string(), nullable=False),
        pa.field("pattern", pa.string(), nullable=False),
        pa.field("material", pa.string(), nullable=False),
        pa.field("brand", pa.string(), nullable=False),
        pa.field("size", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Columns of a catalogue; `image` holds PNG bytes, `label` is the category."""


def generate(start: int, stop: int, *, num_records: int, seed: int = 0, image_size: int = 32) -> pa.Table:
    """Records `start` to `stop` (exclusive) of the catalogue of `num_records` records, with SCHEMA's columns.

    Record i is a function of (seed, i, image_size) alone, so slices can be made in parallel and in any order,
    and a smaller catalogue is the beginning of a larger one. Consecutive records are often listings of one
    product. Raises ValueError for a slice outside the catalogue or an image size below 8.
    """
    if not 0 <= start <= stop <= num_records:
        raise ValueError(
            f"records {start} to {stop} of {num_records} given, 0 <= start <= stop <= num_records expected: "
            f"ask for a slice inside the catalogue"
        )
    if image_size < 8:
        raise ValueError(f"image_size {image_size} given, 8 or more expected: smaller pictures show no attributes")
    step = max(1, BATCH_LEVELS // image_size**2)
    batches = [
        _generate_batch(np.arange(first, min(first + step, stop), dtype=np.int64), seed, image_size)
        for first in range(start, stop, step)
    ]
    return pa.Table.from_batches(batches, schema=SCHEMA).combine_chunks()


def _generate_batch(index: NDArray[np.int64], seed: int, image_size: int) -> pa.RecordBatch:
    group, member = place_records(index, seed)
    values = draw_attributes(group, seed)
    columns: dict[str, list[str] | list[bytes]] = {
        "key": [f"card-{seed}-{number:09d}" for number in index],
        "image": [_encode(picture) for picture in draw_pictures(index, values, seed, image_size)],
        "text": draw_titles(index, group, member, values, seed),
        "group": [f"product-{seed}-{number:09d}" for number in group],
        "split": split_groups(group, seed),
    }
    for name, attribute in ATTRIBUTES.items():
        names = attribute.names
        columns["label" if name == "category" else name] = [names[value] for value in values[name]]
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], type=field.type) for field in SCHEMA], schema=SCHEMA
    )


def _encode(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="png", compress_level=1)
    return file.getvalue()
