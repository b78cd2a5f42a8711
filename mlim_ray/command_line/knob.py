"""One knob of a config, and the walk that finds them all."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from mlim_ray.config.base import Section
from mlim_ray.config.wording import section_classes


@dataclass(frozen=True)
class Knob:
    """One knob of a config and the classes that have it (several where kinds of a part share its name)."""

    path: tuple[str, ...]
    """names of the sections down to the knob, then the knob's own"""
    holders: dict[str | None, type[Section]]
    """class by kind; under None for a section without kinds"""
    num_kinds: int
    """kinds that the section has in all"""

    @property
    def dotted(self) -> str:
        """The knob's key in a config file."""
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """The knob's flag."""
        return flag_of(self.path)

    @property
    def chooses_kind(self) -> bool:
        """Whether this is the knob by which one of several kinds is chosen."""
        return self.num_kinds > 1 and self.path[-1] == "kind"

    def field(self, kind: str | None) -> FieldInfo:
        """The knob's field in the class of one kind."""
        return self.holders[kind].model_fields[self.path[-1]]


def flag_of(path: tuple[str, ...]) -> str:
    """The flag of the knob at a path of names: `--masking.text-ratio`."""
    return "--" + ".".join(path).replace("_", "-")


def knobs_of(config_class: type[Section]) -> list[Knob]:
    """Every knob below a config class, in the order of the classes."""
    return list(_walk({None: config_class}, ()))


def _walk(holders: dict[str | None, type[Section]], path: tuple[str, ...]) -> Iterator[Knob]:
    """The knobs of sections that share a path: the kinds of one part, or one plain section."""
    names = dict.fromkeys(name for holder in holders.values() for name in holder.model_fields)
    for name in names:
        having = {kind: holder for kind, holder in holders.items() if name in holder.model_fields}
        below: dict[str | None, type[Section]] = {}
        for holder in having.values():
            below.update(section_classes(holder.model_fields[name]))
        if below:
            yield from _walk(below, (*path, name))
        else:
            yield Knob((*path, name), having, len(holders))
