"""How a knob, and a mistake in one, are put into words: the same for the command line and a config file."""

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mlim_ray.config.base import Section

_LONGEST_SHOWN = 80
_UNION_ORIGINS = (Union, types.UnionType)
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def section_classes(field: FieldInfo) -> dict[str | None, type[Section]]:
    """The classes that a config field may hold: one under None for a plain section, one under each kind for a
    choice of parts, none at all for a knob."""
    if is_section(field.annotation):
        return {None: field.annotation}  # type: ignore[dict-item]
    if field.discriminator is None:
        return {}
    name = str(field.discriminator)
    members = get_args(field.annotation)
    return {get_args(member.model_fields[name].annotation)[0]: member for member in members}


def is_section(annotation: object) -> bool:
    """Whether a type annotation is a plain section."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def union_members(annotation: object) -> tuple[Any, ...]:
    """The members of a union in their order; the annotation alone where it is none."""
    return get_args(annotation) if get_origin(annotation) in _UNION_ORIGINS else (annotation,)


def unwrap(annotation: Any) -> tuple[Any, list[object]]:
    """A type without its `Annotated`, and the bounds that came with it."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    inner, *extras = get_args(annotation)
    bounds: list[object] = []
    for extra in extras:
        bounds += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return inner, bounds


def expected(field: FieldInfo) -> str:
    """What a field accepts, as in "a number from 0 to 1" or "one of a, b".

    Raises:
        TypeError: the field is of a type that cannot be written as text.
    """
    if section_classes(field):
        return "a section with keys of its own"
    return _accepts(field.annotation, field.metadata)


def shown(value: object) -> str:
    """A knob's value as a person would write it on a command line, in one short line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(shown(item) for item in value) or "nothing"
    text = _decimal(value) if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if not text.strip():
        return "nothing" if not text else "only spaces"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely meant; None when no name comes near."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def plain_problem(error: ValidationError, config_class: type[Section] | None = None) -> tuple[str, str]:
    """A pydantic error as (dotted key, one plain sentence); the key of a rule about the whole is empty.

    Only the first problem is told in full. `config_class` gives the sentence the same words as `--help` uses.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    key, holder, field = _locate(first["loc"], config_class)
    kind = first["type"]
    if kind == "value_error":
        sentence = str(first["ctx"]["error"])
    elif kind == "extra_forbidden":
        known = [] if holder is None else list(holder.model_fields)
        guess = nearest(key.rpartition(".")[2], known)
        mend = f"did you mean {guess}?" if guess else f"known: {', '.join(known)}" if known else "remove it"
        sentence = f"unknown key; {mend}"
    elif kind.startswith("union_tag") and field is not None:
        found = first["input"].get(field.discriminator) if isinstance(first["input"], dict) else None
        choices = ", ".join(str(choice) for choice in section_classes(field))
        sentence = f"given kind {shown(found)}, expected one of {choices}"
    else:
        wanted = expected(field) if field is not None else first["msg"].removeprefix("Input should be ")
        sentence = f"given {shown(first['input'])}, expected {wanted}"
    num_more = len({_locate(problem["loc"], config_class)[0] for problem in problems} - {key})
    return key, f"{sentence} (and {num_more} more)" if num_more else sentence


def _locate(
    loc: Sequence[int | str], config_class: type[Section] | None
) -> tuple[str, type[Section] | None, FieldInfo | None]:
    """The dotted key of a pydantic location, the section that holds it and its field.

    The names that pydantic adds for a chosen kind or a member of a union are no part of the key.
    """
    if config_class is None:
        return ".".join(str(part) for part in loc), None, None
    keys: list[str] = []
    holder: type[Section] | None = config_class
    field: FieldInfo | None = None
    kinds: dict[str | None, type[Section]] = {}
    for part in loc:
        if kinds:
            holder, kinds = kinds.get(str(part)), {}
            continue
        keys.append(str(part))
        field = None if holder is None else holder.model_fields.get(str(part))
        if field is None:
            break
        kinds = section_classes(field)
        if not kinds:
            break
        if None in kinds:
            holder, kinds = kinds[None], {}
    return ".".join(keys), holder, field


def _accepts(annotation: object, bounds: Sequence[object]) -> str:
    choices: list[str] = []
    others: list[str] = []
    for member in union_members(annotation):
        inner, own = unwrap(member)
        if inner is type(None):
            choices.append("none")
        elif get_origin(inner) is Literal:
            choices += [shown(choice) for choice in get_args(inner)]
        elif get_origin(inner) is tuple:
            items = get_args(inner)
            number = "" if items[-1] is Ellipsis else f"{len(items)} "
            others.append(f"{number}values separated by commas, each {_accepts(items[0], [])}")
        elif inner not in _NAMES:
            raise TypeError(f"a knob of type {inner!r} cannot be written on the command line")
        else:
            others.append(" ".join(filter(None, (_NAMES[inner], _range([*own, *bounds])))))
    if choices and not others:
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    return " or ".join(others + choices)


def _decimal(value: float) -> str:
    text = f"{value:.6g}"
    return f"{text}.0" if text.lstrip("-").isdigit() else text


def _range(bounds: Sequence[object]) -> str:
    limits = {
        name: value
        for bound in bounds
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(bound, name, None)) is not None
    }
    if {"ge", "le"} <= limits.keys():
        return f"from {_number(limits['ge'])} to {_number(limits['le'])}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    return " and ".join(f"{words[name]} {_number(value)}" for name, value in limits.items())


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:g}" if isinstance(value, float) else str(value)
