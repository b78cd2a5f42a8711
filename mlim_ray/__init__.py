"""MLIM pre-training (arXiv 2109.12178) on image-text catalogues: hidden words, hidden cells, one transformer.

`load` opens the model of a run. transformers' `AutoModel` and `AutoProcessor` open it too once this is imported.
"""

from typing import TYPE_CHECKING, Any

from mlim_ray.registration import register_with_transformers

if TYPE_CHECKING:
    from mlim_ray.inference import load

__all__ = ["load"]

register_with_transformers()


def __getattr__(name: str) -> Any:
    # It needs torch, which most processes that import this do not.
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlim_ray.inference import load

    return load
