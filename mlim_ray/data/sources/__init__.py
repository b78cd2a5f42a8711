"""Where raw records come from: one file per kind of source."""

from mlim_ray.data.sources.opening import open_source, resolve_prepare_config
from mlim_ray.data.sources.source import Slice, Source, limit_slices

__all__ = ["Slice", "Source", "limit_slices", "open_source", "resolve_prepare_config"]
