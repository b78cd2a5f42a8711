"""Every knob of a config as a flag `--section.knob VALUE`, in any order.

Built on argparse: the ready-made bridges from config classes to a command line (tyro among them) turn a
choice of parts into sub-commands, which would force an order on the flags. Here the knobs of all kinds of a
part stand side by side (`--masking.kind independent --masking.text-ratio 0.3`), and one that the chosen kind
lacks is an error.
"""

import argparse
from typing import Any, TypeVar

from pydantic import ValidationError

from mlim_ray.command_line.knob import Knob, flag_of, knobs_of
from mlim_ray.command_line.knob_help import heading, meaning, metavar
from mlim_ray.command_line.knob_values import Given, contradiction, typed
from mlim_ray.config.base import Section
from mlim_ray.config.wording import plain_problem, section_classes, shown

_DEST = "knob."

Config = TypeVar("Config", bound=Section)


def add_knobs(parser: argparse.ArgumentParser, config_class: type[Section], base: Section | None = None) -> None:
    """Add a flag for every knob of `config_class`, grouped by section.

    Values stay text until `apply_knobs`, because a knob's type may depend on the kind chosen beside it.
    `base` gives the defaults that `--help` shows; without it they are those of the classes.

    Raises:
        TypeError: a config class has a knob of a type that cannot be written as text.
    """
    groups: dict[tuple[str, ...], argparse._ArgumentGroup] = {}
    for knob in knobs_of(config_class):
        section = knob.path[:-1]
        if section not in groups:
            groups[section] = parser.add_argument_group(*heading(config_class, section))
        _add(groups[section], knob.flag, knob, meaning(knob, base))


def add_shorthand(
    parser: argparse._ActionsContainer,
    config_class: type[Section],
    flag: str,
    dotted: str,
    base: Section | None = None,
) -> None:
    """Add `flag` as a short form of the knob `dotted`; the long flag stays, and the two must agree."""
    knob = next(knob for knob in knobs_of(config_class) if knob.dotted == dotted)
    _add(parser, flag, knob, f"{meaning(knob, base)}; short for {knob.flag}")


def apply_knobs(base: Config, parsed: argparse.Namespace) -> Config:
    """`base` with the parsed flags laid over it.

    A part switched to another kind starts from that kind's defaults.

    Raises:
        ValueError: one line that names the flag, what was given, what was expected and how to mend it.
    """
    given = {
        tuple(name.removeprefix(_DEST).split(".")): uses
        for name, uses in vars(parsed).items()
        if name.startswith(_DEST) and uses
    }
    values = _with_overrides(base, (), given)
    try:
        return type(base).model_validate(values)
    except ValidationError as error:
        key, sentence = plain_problem(error, type(base))
        section = tuple(key.split(".")) if key else ()
        flags = [uses[0].flag for path, uses in given.items() if path[: len(section)] == section]
        raise ValueError(": ".join(filter(None, (" ".join(flags) or key, sentence)))) from error


def given_text(parsed: argparse.Namespace, dotted: str) -> str | None:
    """The text given for one knob on the command line; None where it was not given."""
    uses = getattr(parsed, _DEST + dotted, None)
    return uses[-1].text if uses else None


class _KeepText(argparse.Action):
    """Collects every use of a knob's flag and of its short form."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        uses = getattr(namespace, self.dest, None) or []
        setattr(namespace, self.dest, [*uses, Given(str(option_string), values)])


def _add(group: argparse._ActionsContainer, flag: str, knob: Knob, about: str) -> None:
    fields = [knob.field(kind) for kind in knob.holders]
    group.add_argument(
        flag,
        dest=_DEST + knob.dotted,
        action=_KeepText,
        default=argparse.SUPPRESS,
        metavar=metavar(fields),
        help=about.replace("%", "%%"),
    )


def _with_overrides(base: Section, path: tuple[str, ...], given: dict[tuple[str, ...], list[Given]]) -> dict[str, Any]:
    """The values of a section and all below it, the given ones typed and put in their place."""
    values: dict[str, Any] = {}
    for name, field in type(base).model_fields.items():
        here = (*path, name)
        held = getattr(base, name)
        classes = section_classes(field)
        if not classes:
            values[name] = typed(given[here], field, held) if here in given else held
            continue
        if field.discriminator is not None:
            held = _chosen(held, classes, (*here, str(field.discriminator)), given)
        values[name] = _with_overrides(held, here, given)
    return values


def _chosen(
    held: Section,
    classes: dict[str | None, type[Section]],
    kind_path: tuple[str, ...],
    given: dict[tuple[str, ...], list[Given]],
) -> Section:
    """The part to start from, of the kind that was asked for; knobs that this kind lacks are refused."""
    kind = getattr(held, kind_path[-1])
    if kind_path in given:
        asked = list(dict.fromkeys(given[kind_path]))
        kind = asked[0].text.strip()
        if any(use.text.strip() != kind for use in asked):
            raise ValueError(contradiction(asked))
        if kind not in classes:
            choices = ", ".join(str(choice) for choice in classes)
            raise ValueError(f"{asked[0].flag}: given {shown(kind)}, expected one of {choices}")
    chosen = held if isinstance(held, classes[kind]) else classes[kind]()
    section = kind_path[:-1]
    for path, uses in given.items():
        if path[: len(section)] != section or path[len(section)] in classes[kind].model_fields:
            continue
        having = [str(other) for other, cls in classes.items() if path[len(section)] in cls.model_fields]
        flag = flag_of(kind_path)
        raise ValueError(
            f"{uses[0].flag}: given {shown(uses[0].text)} with {flag} {kind}, which has no such knob; "
            f"expected {flag} {' or '.join(having)}"
        )
    return chosen
