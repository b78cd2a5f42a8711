"""Where raw records come from: one file per kind of source."""

from mlim_ray.data.sources.opening import (
    Opened,
    open_new_files,
    open_source,
    open_with_files,
    resolve_prepare_config,
)
from mlim_ray.data.sources.source import Slice, Source, join_slices, limit_slices

__all__ = [
    "Opened",
    "Slice",
    "Source",
    "join_slices",
    "limit_slices",
    "open_new_files",
    "open_source",
    "open_with_files",
    "resolve_prepare_config",
]
