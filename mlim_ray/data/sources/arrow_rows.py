"""From batches of Arrow to raw records, for the sources that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.rejection import Problem, Reason, shorten
from mlim_ray.data.schema import Columns, is_binary_type, is_image_struct, is_text_type
from mlim_ray.data.sources.lines import MAX_LINE_BYTES
from mlim_ray.data.sources.pictures import PictureFolder

FindFolder = Callable[[], PictureFolder]
"""gives the folder that paths of pictures are relative to; asked only where a batch has paths"""


def to_records(
    batch: pa.RecordBatch, columns: Columns, source: str, first_row: int, folder: FindFolder
) -> Iterator[RawRecord]:
    """The rows of a batch, which begins at row `first_row` of `source` and has at least the columns that are read.

    A value too long to be read makes its row one with a problem, and is never copied.
    """
    problems: dict[int, Problem] = {}
    too_large: dict[int, int] = {}
    if batch.nbytes > MAX_LINE_BYTES:
        batch, too_large = _without_huge(batch, columns.image, MAX_ENCODED_BYTES)
        for name in sorted({*columns.names()} - {columns.image}):
            batch, too_long = _without_huge(batch, name, MAX_LINE_BYTES)
            for row, length in too_long.items():
                detail = f"{shorten(name, 50)}: {length} bytes; at most {MAX_LINE_BYTES}"
                problems[row] = Problem(Reason.TOO_LONG, detail)

    def values(column: str | None) -> list[Any]:
        return [None] * batch.num_rows if column is None else to_values(batch.column(column))

    keys = values(columns.key)
    if columns.key is None:
        keys = [f"{source}:{first_row + i}" for i in range(batch.num_rows)]
    names = columns.attributes
    attributes = [dict(zip(names, row, strict=True)) for row in zip(*map(values, names), strict=True)]
    images = _images(batch.column(columns.image), folder)
    if too_large:
        images = [
            Problem(Reason.TOO_MANY_BYTES, f"{too_large[row]} bytes; at most {MAX_ENCODED_BYTES}")
            if row in too_large
            else image
            for row, image in enumerate(images)
        ]
    rows = zip(
        range(batch.num_rows),
        keys,
        images,
        _texts(batch, columns),
        values(columns.label),
        values(columns.group),
        values(columns.split),
        attributes or repeat({}, batch.num_rows),
        strict=True,
    )
    for row, key, image, text, label, group, split, found in rows:
        problem = problems.get(row)
        yield RawRecord(source, first_row + row, key, image, text, label, group, split, problem, attributes=found)


def to_values(column: pa.Array) -> list[Any]:
    """Values of a column for Python; strings as bytes, because a file may hold invalid UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    return column.to_pylist()


def _texts(batch: pa.RecordBatch, columns: Columns) -> Iterable[bytes | str | None]:
    values = [to_values(batch.column(name)) for name in columns.text_columns]
    template = columns.template
    return values[0] if template is None else map(template.fill, zip(*values, strict=True))


def _images(column: pa.Array, folder: FindFolder) -> Iterable[bytes | Problem | None]:
    if is_text_type(column.type):
        return folder().read_each(to_values(column))
    if not is_image_struct(column.type):
        return to_values(column)
    # Flattening keeps the nulls of the struct, which its own fields do not have.
    names = [field.name for field in column.type]
    fields = dict(zip(names, column.flatten(), strict=True))
    images = to_values(fields["bytes"])
    if "path" not in fields or fields["path"].null_count == len(images):
        return images
    return _structs(images, to_values(fields["path"]), folder)


def _structs(images: list[bytes | None], paths: list[Any], folder: FindFolder) -> Iterator[bytes | Problem | None]:
    """Bytes where a struct has them, else the file at its path."""
    is_read = [image is None and path is not None for image, path in zip(images, paths, strict=True)]
    found = folder().read_each(path for path, read in zip(paths, is_read, strict=True) if read)
    for image, read in zip(images, is_read, strict=True):
        yield next(found) if read else image


def _without_huge(batch: pa.RecordBatch, name: str, max_bytes: int) -> tuple[pa.RecordBatch, dict[int, int]]:
    """The batch with nulls for values of `name` of more than `max_bytes`, and the bytes of these by row."""
    column = batch.column(name)
    if column.nbytes <= max_bytes or not (is_text_type(column.type) or is_binary_type(column.type)):
        return batch, {}
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Of views Arrow does not tell the lengths.
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_string() if pa.types.is_string_view(column.type) else pa.large_binary())
    lengths = pc.binary_length(column)
    is_huge = pc.fill_null(pc.greater(lengths, max_bytes), False)
    if not pc.any(is_huge).as_py():
        return batch, {}
    rows = np.flatnonzero(is_huge.to_numpy(zero_copy_only=False)).tolist()
    kept = pc.if_else(is_huge, pa.scalar(None, column.type), column)
    found = {row: lengths[row].as_py() for row in rows}
    return batch.set_column(batch.schema.get_field_index(name), name, kept), found
