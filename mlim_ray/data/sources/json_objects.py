"""JSON objects of unknown origin: parsed without trust, and the columns that they make."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from mlim_ray.data.rejection import Problem, Reason
from mlim_ray.data.sources.lines import MAX_LINE_BYTES

_MOST_KEYS = 1_000


def parse_object(content: bytes | None) -> dict[str, Any] | Problem:
    """The object in `content`, or why there is none; bytes that are no UTF-8 become lone surrogates.

    Hostile input ends here: too long (None), too deep, numbers of too many digits.
    """
    if content is None:
        return Problem(Reason.MALFORMED_ROW, f"more than {MAX_LINE_BYTES} bytes of JSON")
    try:
        found = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return Problem(Reason.MALFORMED_ROW, f"no JSON: {error}")
    if not isinstance(found, dict):
        kind = "null" if found is None else type(found).__name__
        return Problem(Reason.MALFORMED_ROW, f"{kind} instead of an object")
    return found


class Kinds:
    """The keys of some objects in the order of their first mention, and the types of their values."""

    def __init__(self) -> None:
        self.num_objects = 0
        self._types: dict[str, set[type]] = {}

    def add(self, found: dict[str, Any]) -> None:
        """Take one more object into account."""
        self.num_objects += 1
        for name, value in found.items():
            if name in self._types or len(self._types) < _MOST_KEYS:
                self._types.setdefault(name, set()).add(type(value))

    def update(self, other: Kinds) -> None:
        """Take the objects of another file into account."""
        self.num_objects += other.num_objects
        for name, types in other._types.items():
            self._types.setdefault(name, set()).update(types)

    def schema(self) -> pa.Schema:
        """The keys as columns, each with the type that its values have in common."""
        shown = ((name.encode("utf-8", "replace").decode(), types) for name, types in self._types.items())
        return pa.schema([(name, _common(types - {type(None)})) for name, types in shown])


def _common(types: set[type]) -> pa.DataType:
    # Where some are texts, what is nested is the exception, and its record is rejected.
    if str not in types and types & {dict, list}:
        return pa.struct([]) if dict in types else pa.list_(pa.null())
    if not types:
        return pa.null()
    for kind, fitting in ((pa.bool_(), {bool}), (pa.int64(), {int}), (pa.float64(), {int, float})):
        if types <= fitting:
            return kind
    return pa.string()
