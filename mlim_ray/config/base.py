"""The base of every config class: frozen, typed, strict about unknown keys."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

AUTO: Final = "auto"
"""A knob's explicit "decide from the data, the model size or the machine"; `resolve` replaces it before use."""


class Section(BaseModel):
    """One part of a run's config. Instances cannot be changed; derive variants with `model_copy(update=...)`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


def ratio(default: float) -> float:
    """A knob in [0, 1]."""
    value: float = Field(default, ge=0.0, le=1.0)
    return value
