"""The text of a flag as a value of its knob's type."""

import re
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from mlim_ray.config.wording import expected, shown, union_members, unwrap

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


class Given(NamedTuple):
    """One use of a flag: as the user named it, and the text that came with it."""

    flag: str
    text: str


def typed(uses: list[Given], field: FieldInfo, default: object) -> Any:
    """The value that all uses of a knob's flags agree on.

    Raises:
        ValueError: one line: a text is no valid value of the field, or the uses contradict each other.
    """
    values = [_value(use, field, default) for use in uses]
    if any(value != values[0] for value in values):
        raise ValueError(contradiction(uses))
    return values[0]


def contradiction(uses: list[Given]) -> str:
    """What to tell about flags that set one knob to different values."""
    told = " and ".join(f"{use.flag} {shown(use.text)}" for use in uses)
    return f"{told} set the same knob to different values, expected one value; leave all but one out"


def _value(use: Given, field: FieldInfo, default: object) -> Any:
    """The text of one flag as a valid value of its field."""
    accepted: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        return TypeAdapter(accepted, config=_STRICT).validate_python(_from_text(field.annotation, use.text.strip()))
    except ValueError as error:  # pydantic's ValidationError is one too
        raise ValueError(
            f"{use.flag}: given {shown(use.text)}, expected {expected(field)}; "
            f"leave it out for the default, {shown(default)}"
        ) from error


def _from_text(annotation: Any, text: str) -> Any:
    """Text as the first member of a type that it can be; strict: a count is never written as 1e3 or 2.0.

    Raises:
        ValueError: the text is of none of the types.
    """
    members = [unwrap(member)[0] for member in union_members(annotation)]
    for member in sorted(members, key=lambda member: member is str):
        if member is type(None) and text == "none":
            return None
        if get_origin(member) is Literal:
            for choice in get_args(member):
                if shown(choice) == text:
                    return choice
        if get_origin(member) is tuple:
            parts, items = text.split(","), get_args(member)
            items = (items[0],) * len(parts) if items[-1] is Ellipsis else items
            if len(parts) == len(items):
                return tuple(_from_text(item, part.strip()) for item, part in zip(items, parts, strict=True))
        if member is bool and text in ("true", "false"):
            return text == "true"
        if member is int and _INTEGER.fullmatch(text):
            return int(text)
        if member is float and _NUMBER.fullmatch(text):
            return float(text)
        if member is str and text and text.isprintable():
            return text
    raise ValueError(f"{text!r} is not of the expected type")
