"""What `--help` says about a knob: meaning, accepted values, default, and which kinds of a part have it."""

import argparse
import textwrap
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from mlim_ray.command_line.knob import Knob
from mlim_ray.config.base import Section
from mlim_ray.config.wording import expected, section_classes, shown, union_members, unwrap


class WholeWordHelp(argparse.HelpFormatter):
    """Help that wraps between words only, so that a flag named in it can be copied."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=8)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [self._split_lines(part, width - len(indent)) for part in text.strip().split("\n\n")]
        return "\n\n".join("\n".join(indent + line for line in lines) for lines in paragraphs)


def heading(config_class: type[Section], section: tuple[str, ...]) -> tuple[str, str]:
    """Title and description of a section's group in `--help`."""
    holders: dict[str | None, type[Section]] = {None: config_class}
    for name in section:
        fields = [holder.model_fields[name] for holder in holders.values() if name in holder.model_fields]
        holders = {kind: held for field in fields for kind, held in section_classes(field).items()}
    lines = {kind: " ".join((holder.__doc__ or "").split("\n\n")[0].split()) for kind, holder in holders.items()}
    about = " ".join(line if kind is None else f"{kind}: {line}" for kind, line in lines.items())
    return ".".join(section).replace("_", "-") or "knobs", about


def metavar(fields: list[FieldInfo]) -> str:
    """The short sign of what a knob takes: `N`, `X|auto`, `mam|independent`."""
    names = {int: "N", float: "X", bool: "true|false", str: "TEXT", type(None): "none", ...: "..."}
    words: list[str] = []
    for field in fields:
        for member in union_members(field.annotation):
            inner, _ = unwrap(member)
            if get_origin(inner) is Literal:
                words += [shown(choice) for choice in get_args(inner)]
            elif get_origin(inner) is tuple:
                items = [unwrap(item)[0] for item in get_args(inner)]
                words.append(",".join(names.get(item) or "|".join(map(shown, get_args(item))) for item in items))
            else:
                words.append(names[inner])
    return "|".join(dict.fromkeys(words))


def meaning(knob: Knob, base: Section | None) -> str:
    """Meaning, accepted values and default of a knob, told once for all kinds that agree."""
    told: dict[str, list[str]] = {}
    for kind, holder in knob.holders.items():
        field = knob.field(kind)
        text = " ".join((field.description or "").split())
        if not knob.chooses_kind:
            accepted = "" if _is_choice(field) else f"{expected(field)}; "
            text = f"{text} ({accepted}default {_default(knob, kind, holder, base)})"
        told.setdefault(text, []).append(str(kind))
    if knob.chooses_kind:
        meanings = "; ".join(f"{', '.join(kinds)}: {text}" for text, kinds in told.items())
        return f"{meanings} (default {_default_kind(knob, base)})"
    if len(told) == 1 and len(knob.holders) == knob.num_kinds:
        return next(iter(told))
    return "; ".join(f"{', '.join(kinds)}: {text}" for text, kinds in told.items())


def _is_choice(field: FieldInfo) -> bool:
    return all(get_origin(unwrap(member)[0]) is Literal for member in union_members(field.annotation))


def _at(base: Section | None, path: tuple[str, ...]) -> Any:
    value: Any = base
    for name in path:
        value = getattr(value, name, None)
    return value


def _default(knob: Knob, kind: str | None, holder: type[Section], base: Section | None) -> str:
    held = _at(base, knob.path[:-1])
    if isinstance(held, holder):
        return shown(getattr(held, knob.path[-1]))
    return shown(knob.field(kind).get_default(call_default_factory=True))


def _default_kind(knob: Knob, base: Section | None) -> str:
    return shown(_at(base, knob.path)) if base is not None else shown(next(iter(knob.holders)))
