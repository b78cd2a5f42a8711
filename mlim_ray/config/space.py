"""The space of a search as text: `recon.weight=1..100:log`, `recon.target=whole|masked`, `policy=mam`."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mlim_ray.config.base import Section
from mlim_ray.config.overlay import with_knobs

Value = bool | int | float | str

DEFAULT_SPACE = {
    "policy": "mam|independent|alternating",
    "mam.light_probability": "0..1",
    "mam.image_heavy_share": "0..1",
    "mam.image_heavy_ratio": "0.5..1",
    "mam.text_heavy_ratio": "0.5..1",
    "mam.image_light_ratio": "0.05..0.4",
    "mam.text_light_ratio": "0.05..0.4",
    "independent.image_ratio": "0.05..0.95",
    "independent.text_ratio": "0.05..0.95",
    "alternating.image_heavy_probability": "0.1..0.9",
    "alternating.image_heavy_ratio": "0.5..1",
    "alternating.text_heavy_ratio": "0.5..1",
    "recon.weight": "1..100:log",
    "recon.target": "whole|masked",
    "train.learning_rate": "around the size's own",
}
"""What is varied unless `search.space` says otherwise (our choice; the paper reports no search).

MAM's mode probabilities are the light mode's and the image-heavy share of the rest: two independent numbers that cover
the simplex without a corner that the sampler cannot see. The learning rate's range is around the size's own.
"""
WHERE_ASKED_FOR = {
    "blockwise.image_ratio": "0.05..0.95",
    "blockwise.text_ratio": "0.05..0.95",
    "blockwise.image_only_probability": "0..0.5",
    "blockwise.text_only_probability": "0..0.5",
    "text_attentive.image_ratio": "0.05..0.95",
    "text_attentive.text_ratio": "0.05..0.95",
    "text_attentive.image_only_probability": "0..0.5",
    "text_attentive.text_only_probability": "0..0.5",
}
"""What is varied of policies that a search meets only if `policy` names them (our choice)."""
_WEIGHT_OF_OTHER_TARGETS = "0.1..10:log"
"""of `recon.weight` where the image target is no raw pixels: those losses begin near 1 (our choice)"""
LEARNING_RATE = "train.learning_rate"
POLICIES = ("mam", "independent", "alternating", "blockwise", "text_attentive")
_LEARNING_RATE_FACTOR = 3.0
_SHARED = ("prepare", "feed", "probe", "search", "masking")
"""Sections that all trials share, and that of the policy, which has names of its own."""
_FIXED = ("model.size", "model.cell_size", "model.init_from", "train.num_steps", "train.seed")
_NAMES = (*DEFAULT_SPACE, *WHERE_ASKED_FOR)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_FORMS = "LOW..HIGH, LOW..HIGH:log, ONE|OTHER, or a single value"


@dataclass(frozen=True)
class Interval:
    """All numbers between two, both included."""

    low: float
    high: float
    log: bool
    is_integer: bool = False
    """whether only whole numbers are meant"""

    def holds(self, value: Value) -> bool:
        """Whether it lies between the two."""
        return not isinstance(value, bool | str) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some values; a single one fixes the parameter."""

    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether it is one of them."""
        return value in self.values


Dimension = Interval | Choice


def parse_entries(entries: Iterable[str]) -> dict[str, Dimension]:
    """What the entries of a space say, each `NAME=WHAT`.

    Raises:
        ValueError: one line, for an entry that is none.
    """
    found: dict[str, Dimension] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"given {entry!r}, expected NAME=WHAT with {_FORMS}")
        if name in found:
            raise ValueError(f"given {entry!r}, expected each name once; leave one {name} out")
        if name not in _NAMES and (name in _FIXED or name.partition(".")[0] in (*_SHARED, *POLICIES)):
            raise ValueError(f"given {entry!r}: {_why_not(name)}; varied can be {_known()}")
        try:
            found[name] = _checked(name, _dimension(text.strip()))
        except ValueError as error:
            raise ValueError(f"given {entry!r}, expected {error}") from error
    return found


def parse_space(entries: Iterable[str], config: Section, learning_rate: float) -> dict[str, Dimension]:
    """Every parameter of a search with what it may be: the defaults, and the entries laid over them.

    Args:
        entries: each `NAME=WHAT`.
        config: what trials start from; knobs that are varied must be able to take both ends, or every choice.
        learning_rate: the one that trials start from unless it is varied.

    Raises:
        ValueError: one line naming the entry.
    """
    low, high = learning_rate / _LEARNING_RATE_FACTOR, learning_rate * _LEARNING_RATE_FACTOR
    space: dict[str, Dimension] = {LEARNING_RATE: Interval(low, high, log=True)}
    space = {name: space.get(name) or _dimension(text) for name, text in DEFAULT_SPACE.items()}
    if getattr(getattr(config, "recon", None), "kind", "pixels") != "pixels":
        space["recon.weight"] = _dimension(_WEIGHT_OF_OTHER_TARGETS)
    given = parse_entries(entries)
    policies = given.get("policy", space["policy"])
    for name, text in WHERE_ASKED_FOR.items():
        if policies.holds(name.partition(".")[0]):
            space[name] = _dimension(text)
    for name, dimension in given.items():
        space[name] = _fitted(name, dimension, config) if is_knob(name) else dimension
    return space


def is_knob(name: str) -> bool:
    """Whether a parameter is a knob of the config by its own name; the others are of a masking policy."""
    return name != "policy" and name.partition(".")[0] not in POLICIES


def _checked(name: str, dimension: Dimension) -> Dimension:
    """The dimension of a policy, or of what belongs to one, if it can be of that."""
    if name == "policy":
        if not isinstance(dimension, Choice) or not set(dimension.values) <= set(POLICIES):
            raise ValueError(f"one or some of {'|'.join(POLICIES)}")
    elif not is_knob(name) and not all(isinstance(end, int | float) and 0 <= end <= 1 for end in _samples(dimension)):
        raise ValueError("numbers from 0 to 1")
    return dimension


def _fitted(name: str, dimension: Dimension, config: Section) -> Dimension:
    """The dimension of a knob that takes it, of whole numbers only where the knob takes no others."""
    samples = _samples(dimension)
    for value in samples:
        with_knobs(config, {name: value})
    if isinstance(dimension, Interval) and all(isinstance(value, int) for value in samples):
        return replace(dimension, is_integer=not _takes(config, name, dimension.low + 0.5))
    return dimension


def _samples(dimension: Dimension) -> tuple[Value, ...]:
    """Values that show whether a knob takes the whole dimension."""
    if isinstance(dimension, Choice):
        return dimension.values
    return tuple(int(end) if end.is_integer() else end for end in (dimension.low, dimension.high))


def _takes(config: Section, name: str, value: float) -> bool:
    try:
        with_knobs(config, {name: value})
    except ValueError:
        return False
    return True


def _dimension(text: str) -> Dimension:
    span, _, scale = text.partition(":")
    low, dots, high = span.partition("..")
    if not dots:
        values = tuple(_value(part) for part in text.split("|"))
        if len(set(values)) < len(values):
            raise ValueError("each value once")
        return Choice(values)
    ends = [_value(end) for end in (low, high)]
    if scale not in ("", "log") or any(isinstance(end, bool | str) for end in ends):
        raise ValueError(_FORMS)
    first, last = float(ends[0]), float(ends[1])
    if not (math.isfinite(first) and math.isfinite(last) and first < last):
        raise ValueError("a lower end below the upper one")
    if scale == "log" and first <= 0.0:
        raise ValueError("a lower end above 0 on a log scale")
    return Interval(first, last, scale == "log")


def _value(text: str) -> Value:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    if not text or not text.isprintable():
        raise ValueError(_FORMS)
    return text


def _why_not(name: str) -> str:
    section = name.partition(".")[0]
    if section == "masking":
        return "masking is varied by the names of its policies, such as mam.image_heavy_ratio"
    if section in POLICIES:
        return f"{section} has no such parameter"
    return f"all trials share {name if name in _FIXED else section}"


def _known() -> str:
    return f"{', '.join(_NAMES)}, and any knob of resolution, mlm, recon, itm, itc, balance, model and train"
