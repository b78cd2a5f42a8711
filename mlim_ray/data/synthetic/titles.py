"""Titles of generated products: templates and wordings, written and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mlim_ray.data.synthetic.attributes import ATTRIBUTES, IntArray
from mlim_ray.data.synthetic.counter import Stream, random_bits

# Each leaves something out, so that a title alone never tells a product from all others. At most two share
# a number of words, so that a reader who sees few words still knows most of the order.
TEMPLATES: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split())
    for line in (
        "{brand} {colour} {pattern} {category}",
        "{pattern} {category} {colour} {material} {size}",
        "{colour} {material} {pattern} {category} by {brand}",
        "{size} {pattern} {category} by {brand} in {colour}",
        "{material} {colour} {category} {size}",
        "{pattern} {material} {colour} by {brand}",
        "{size} {pattern} {material} {category} by {brand}",
        "{category} by {brand} in {pattern} {colour} and {material}",
    )
)
"""Word slots in order: `{attribute}` is filled with a wording, any other word stands for itself."""


@dataclass(frozen=True)
class Title:
    """A title read back: its template's number and the value number of every attribute that it names."""

    words: tuple[str, ...]
    template: int
    values: Mapping[str, int]


def slot_attribute(slot: str) -> str | None:
    """The attribute that fills a slot of a template, or None for a word that stands for itself."""
    return slot[1:-1] if slot.startswith("{") else None


def draw_titles(
    index: IntArray, group: IntArray, member: IntArray, values: Mapping[str, IntArray], seed: int
) -> list[str]:
    """The title of each record, a function of its number, its product and its place in the group.

    Listings of one product take the templates in a drawn order, hence never the same one, and two templates tell no
    more than that of whether they are of one product; for a single record the template is uniform and independent of
    the product, and so is each wording.
    """
    orders = np.argsort(random_bits(seed, Stream.TEMPLATE, group, len(TEMPLATES)), axis=1)
    template = orders[np.arange(len(orders)), member]
    bits = random_bits(seed, Stream.WORDING, index, len(ATTRIBUTES))
    words = {}
    for column, (name, attribute) in enumerate(ATTRIBUTES.items()):
        choices = [attribute.wordings[value] for value in values[name]]
        words[name] = [
            of_value[draw % len(of_value)] for of_value, draw in zip(choices, bits[:, column].tolist(), strict=True)
        ]
    titles = []
    for row, number in enumerate(template):
        slots = ((slot, slot_attribute(slot)) for slot in TEMPLATES[number])
        titles.append(" ".join(slot if name is None else words[name][row] for slot, name in slots))
    return titles


def read_title(text: str) -> Title:
    """Template and named attributes of a generated title.

    The reading is unique: no word belongs to two values, and no two templates have the same slots. Raises
    ValueError for a text that no template makes.
    """
    words = tuple(text.split())
    meanings = [_lexicon().get(word) for word in words]
    for number, slots in enumerate(TEMPLATES):
        values = _match(slots, words, meanings)
        if values is not None:
            return Title(words, number, values)
    raise ValueError(
        f"title {text!r} given, one written by the generated catalogue expected (such as "
        f"'aldery red striped bowl'): pass its titles unchanged, or ask for no limits on other data"
    )


def _match(
    slots: Sequence[str], words: Sequence[str], meanings: Sequence[tuple[str, int] | None]
) -> dict[str, int] | None:
    if len(slots) != len(words):
        return None
    values = {}
    for slot, word, meaning in zip(slots, words, meanings, strict=True):
        name = slot_attribute(slot)
        if name is None:
            if word != slot:
                return None
        elif meaning is None or meaning[0] != name:
            return None
        else:
            values[name] = meaning[1]
    return values


@lru_cache(maxsize=1)
def _lexicon() -> dict[str, tuple[str, int]]:
    return {
        word: (name, value)
        for name, attribute in ATTRIBUTES.items()
        for value, words in enumerate(attribute.wordings)
        for word in words
    }
