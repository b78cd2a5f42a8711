"""A slice of any source as rows that a model can be asked about: cleaned, unstored, with their place in the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mlim_ray.data import storage
from mlim_ray.data.cleaning import AcceptedRecord, CleaningRules, clean
from mlim_ray.data.images import decode_stored
from mlim_ray.data.parquet import ATTRIBUTES, open_parquet, reading
from mlim_ray.data.records import Records
from mlim_ray.data.rejection import RejectedRecord
from mlim_ray.data.sources import Slice, Source
from mlim_ray.data.sources.prepared_files import PreparedSource
from mlim_ray.data.tokenizer import TextTokenizer

PLACE_FIELDS = (
    pa.field("key", pa.string()),
    pa.field("key_hash", pa.uint64()),
    pa.field("slice", pa.int64()),
    pa.field("row", pa.int64()),
    pa.field("source", pa.string()),
    pa.field("split", pa.string()),
)
"""Which record a row is, and where it came from; `slice` and `row` give the order of the source."""
SCHEMA = pa.schema([*PLACE_FIELDS, ("text", pa.string()), ("image", pa.binary()), ("value", pa.string())])
"""Pictures are raw pixels of the model's size; `value` is that of the source's first attribute, null where it has none
or the record lacks it."""


@dataclass(frozen=True)
class ModelRows:
    """Some records of a slice."""

    num_read: int
    table: pa.Table
    """of SCHEMA, the accepted records"""
    rejected: list[RejectedRecord]


def read_rows(source: Source, part: Slice, number: int, rules: CleaningRules) -> Iterator[ModelRows]:
    """Read and clean slice `number` of a source, in parts of bounded size; nothing is stored.

    A prepared set with pictures of the model's size was cleaned when it was made, and is read as it is.

    Args:
        source: raw or prepared.
        part: where the slice lies.
        number: of the slice.
        rules: their pictures are stored raw.

    Raises ValueError that names the file if it cannot be read.
    """
    if isinstance(source, PreparedSource) and source.prepared.manifest.image.size == rules.image.size:
        yield from _prepared(source, part, number)
        return
    for records in source.read(part):
        cleaned = clean(records, rules)
        yield ModelRows(len(records), _table(cleaned.accepted, number, source.columns.attributes), cleaned.rejected)


def to_records(table: pa.Table, tokenizer: TextTokenizer, image_size: int, max_tokens: int) -> Records:
    """Rows of SCHEMA as the arrays that a model takes, their texts split by its tokenizer."""
    num_records = len(table)
    token_ids_RT = np.full((num_records, max_tokens), tokenizer.pad_id, np.int32)
    word_of_token_RT = np.full((num_records, max_tokens), -1, np.int16)
    num_tokens_R = np.zeros(num_records, np.int16)
    for row, pieces in enumerate(tokenizer.encode(table["text"].to_pylist(), max_tokens)):
        num_tokens = len(pieces.token_ids)
        token_ids_RT[row, :num_tokens] = pieces.token_ids
        word_of_token_RT[row, :num_tokens] = pieces.word_of_token
        num_tokens_R[row] = num_tokens
    images = table["image"].combine_chunks()
    num_bytes = image_size**2 * 3
    pixels = np.frombuffer(images.buffers()[2] or b"", np.uint8, num_records * num_bytes, images.offset * num_bytes)
    return Records(
        table["key_hash"].to_numpy(),
        pixels.reshape(num_records, image_size, image_size, 3),
        token_ids_RT,
        word_of_token_RT,
        num_tokens_R,
    )


def _table(records: Sequence[AcceptedRecord], number: int, attributes: Sequence[str]) -> pa.Table:
    columns = {
        name: pa.array([getattr(record, name) for record in records], SCHEMA.field(name).type)
        for name in SCHEMA.names
        if name not in ("slice", "value")
    }
    columns["slice"] = pa.array(np.full(len(records), number, np.int64))
    columns["value"] = _values([record.attributes for record in records], attributes)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _values(found: Sequence[Mapping[str, str]], attributes: Sequence[str]) -> pa.Array:
    """The value of the first attribute for each record."""
    return pa.array([each.get(attributes[0]) if attributes else None for each in found], pa.string())


def _prepared(source: PreparedSource, part: Slice, number: int) -> Iterator[ModelRows]:
    split, shard = source.shards[part.file]
    manifest = source.prepared.manifest
    path = storage.join(source.prepared.path, shard.path)
    attributes = source.columns.attributes
    names = ["key", "key_hash", "text", "image", *([ATTRIBUTES.name] if attributes else [])]
    step = manifest.row_group_records
    with reading(path), open_parquet(path, memory_map=True) as opened:
        groups = list(range(part.start // step, -(-part.stop // step)))
        table = opened.read_row_groups(groups, columns=names, use_threads=False)
    table = table.slice(0, part.stop - part.start)
    images = table["image"]
    if manifest.image.encoding != "raw":
        pixels = (decode_stored(image, manifest.image.size, manifest.image.encoding) for image in images.to_pylist())
        images = pa.chunked_array([pa.array([picture.tobytes() for picture in pixels], pa.binary())])
    rows = len(table)
    found = [dict(pairs) for pairs in table[ATTRIBUTES.name].to_pylist()] if attributes else [{}] * rows
    columns = {
        **{name: table[name] for name in ("key", "key_hash", "text")},
        "image": images,
        "slice": pa.array(np.full(rows, number, np.int64)),
        "row": pa.array(np.arange(part.start, part.start + rows)),
        "source": pa.array([shard.path] * rows, pa.string()),
        "split": pa.array([split] * rows, pa.string()),
        "value": _values(found, attributes),
    }
    yield ModelRows(rows, pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA), [])
