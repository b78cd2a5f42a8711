"""Values laid over a config: those of a file, or of single knobs named by their dotted path."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mlim_ray.config.base import Section
from mlim_ray.config.wording import plain_problem, section_classes

Config = TypeVar("Config", bound=Section)


def laid_over(base: Mapping[str, Any], values: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """`base` with the keys of `values`, both as plain data of `section`; a part of another kind starts from that kind's
    defaults."""
    merged = dict(base)
    for key, value in values.items():
        field = section.model_fields.get(key) if isinstance(key, str) else None
        classes = section_classes(field) if field is not None else {}
        if field is None or not classes or not isinstance(value, Mapping):
            merged[str(key)] = value
            continue
        tag = None if field.discriminator is None else str(field.discriminator)
        kind = None if tag is None else value.get(tag, base[key][tag])
        if tag is None or kind == base[key][tag]:
            held = classes.get(kind)
            merged[key] = laid_over(base[key], value, held) if held is not None else value
        else:
            merged[key] = value
    return merged


def with_knobs(config: Config, knobs: Mapping[str, object]) -> Config:
    """The config with some knobs changed, each named by its dotted path: `{"recon.weight": 3.0}`.

    Raises:
        ValueError: one line naming the knob, for one that does not exist or a value that it cannot have.
    """
    values: dict[str, Any] = {}
    for dotted, value in knobs.items():
        *sections, name = dotted.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    merged = laid_over(config.model_dump(mode="json"), values, type(config))
    try:
        return type(config).model_validate_json(json.dumps(merged))
    except ValidationError as error:
        raise ValueError(": ".join(filter(None, plain_problem(error, type(config))))) from error
