"""Results as plain values, which JSON takes."""

import dataclasses
import math
from typing import Any

import numpy as np

from mlim_ray.evaluation.result import Result


def plain_result(result: Result) -> dict[str, Any]:
    """A result with its tables and its verdict, as `evaluation.json` holds it; an `Estimate` is a mapping of its
    fields, and a number that is not finite is null."""
    return {
        "result": plain(result),
        "tables": [plain(table) for table in result.tables()],
        "verdict": list(result.verdict()),
    }


def plain(value: Any) -> Any:
    """A dataclass, mapping, sequence or number as JSON takes it.

    Raises:
        TypeError: it is something else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a result holds a {type(value).__name__}, which JSON does not take")
