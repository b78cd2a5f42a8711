"""From the values of one row, by column, to a raw record."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mlim_ray.data.cleaning import RawRecord, RawValue
from mlim_ray.data.rejection import Problem, Reason, shorten
from mlim_ray.data.schema import Columns
from mlim_ray.data.sources.pictures import PathValue, PictureFolder
from mlim_ray.data.template import TextValue

Draft = tuple[RawRecord, PathValue]
"""A record without its picture, and the path of the picture."""


def to_record(columns: Columns, source: str, row: int, values: Mapping[str, Any], default_key: RawValue) -> RawRecord:
    """The record of a row without its picture; a column that `values` lacks is null.

    What is neither text nor a number where one is expected makes the row malformed.
    """
    try:
        return RawRecord(
            source,
            row,
            default_key if columns.key is None else plain(columns.key, values),
            None,
            text_of(columns, values),
            _not_empty(columns.label, values),
            _not_empty(columns.group, values),
            None if columns.split is None else plain(columns.split, values),
            attributes={name: plain(name, values) for name in columns.attributes},
        )
    except TypeError as error:
        return malformed(source, row, str(error))


def text_of(columns: Columns, values: Mapping[str, Any]) -> bytes | str | None:
    """The text of a row. Raises TypeError for a value that is neither text nor a number."""
    if columns.template is not None:
        return columns.template.fill([_scalar(name, values.get(name)) for name in columns.template.columns])
    value = plain(columns.text, values)
    return str(value) if isinstance(value, int) else value


def malformed(source: str, row: int, detail: str) -> RawRecord:
    """A row that could not be read as a whole."""
    return RawRecord(source, row, None, None, None, problem=Problem(Reason.MALFORMED_ROW, shorten(detail)))


def with_pictures(drafts: Iterable[Draft], folder: PictureFolder) -> Iterator[RawRecord]:
    """The records with their pictures read; those with a problem already need none."""
    waiting: deque[RawRecord] = deque()

    def paths() -> Iterator[PathValue]:
        for record, path in drafts:
            waiting.append(record)
            if record.problem is None:
                yield path

    pictures = folder.read_each(paths())
    # Asking for a picture may take several drafts: first bad ones, then those that are fetched ahead.
    for picture in pictures:
        while waiting[0].problem is not None:
            yield waiting.popleft()
        yield replace(waiting.popleft(), image=picture)
    yield from waiting


def plain(name: str, values: Mapping[str, Any]) -> RawValue:
    """The value of a column as bytes, text or a whole number. Raises TypeError for a nested one."""
    value = _scalar(name, values.get(name))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    return value


def _not_empty(name: str | None, values: Mapping[str, Any]) -> RawValue:
    # A table of texts has no other way to leave a label or group out.
    value = None if name is None else plain(name, values)
    return None if value in ("", b"") else value


def _scalar(name: str, value: Any) -> TextValue:
    if value is not None and not isinstance(value, (bytes, str, int, float)):
        raise TypeError(f"{shorten(name, 50)}: a {type(value).__name__}; expected text or a number")
    return value
