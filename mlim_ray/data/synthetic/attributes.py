"""What a generated product is: its attributes, the words for them, its group and its split.

All priors are uniform and all attributes independent: the proofs in `limits` rest on this.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.synthetic.counter import Stream, random_bits

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Attribute:
    """One property of a product. `wordings[v]` are the words for value v, the first being its name."""

    wordings: tuple[tuple[str, ...], ...]
    is_shown: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(words[0] for words in self.wordings)

    @property
    def num_values(self) -> int:
        return len(self.wordings)


ATTRIBUTES: dict[str, Attribute] = {
    "category": Attribute(
        (
            ("shirt", "tee"),
            ("trousers", "pants", "slacks"),
            ("dress", "gown"),
            ("bowl",),
            ("frame",),
            ("scarf",),
            ("belt",),
            ("clock",),
        ),
        is_shown=True,
    ),
    "colour": Attribute(
        (("red",), ("orange",), ("yellow",), ("green",), ("blue",), ("purple",), ("pink",), ("grey",)),
        is_shown=True,
    ),
    "pattern": Attribute(
        (("plain", "solid"), ("striped", "banded"), ("dotted", "spotted"), ("checked", "gingham")),
        is_shown=True,
    ),
    "material": Attribute((("felt", "wool"), ("satin", "silk"), ("tweed", "marled")), is_shown=True),
    "brand": Attribute((("aldery",), ("brenmo",), ("corvat",), ("dunelis",), ("estrix",), ("fawlin",)), is_shown=False),
    "size": Attribute((("small",), ("medium",), ("large",)), is_shown=False),
}
"""The six attributes; a picture shows the first four and never the brand or the size."""

MAX_GROUP_RECORDS = 3
BLOCK_RECORDS = 6
_BLOCK_ORDERS = tuple(permutations((1, 2, 3)))


def place_records(index: IntArray, seed: int) -> tuple[IntArray, IntArray]:
    """Group number and place within the group (0, 1 or 2) of each record number, both int64 [n].

    Each block of six records holds one group of one, one of two and one of three listings, in a drawn order.
    """
    tables = np.array([[g for g, count in enumerate(order) for _ in range(count)] for order in _BLOCK_ORDERS])
    members = np.array([[m for count in order for m in range(count)] for order in _BLOCK_ORDERS])
    block, place = np.divmod(index, BLOCK_RECORDS)
    order = random_bits(seed, Stream.GROUPS, block, 1)[:, 0] % np.uint64(len(_BLOCK_ORDERS))
    return 3 * block + tables[order, place], members[order, place]


def draw_attributes(group: IntArray, seed: int, stream: Stream = Stream.PRODUCT) -> dict[str, IntArray]:
    """The value numbers of each attribute for each group number, int64 [n] per attribute name."""
    bits = random_bits(seed, stream, group, len(ATTRIBUTES))
    return {
        name: (bits[:, column] % np.uint64(attribute.num_values)).astype(np.int64)
        for column, (name, attribute) in enumerate(ATTRIBUTES.items())
    }


def split_groups(group: IntArray, seed: int) -> list[str]:
    """`train`, `val` or `test` (8 : 1 : 1 in expectation) by a hash of the group, which stays together."""
    tenth = random_bits(seed, Stream.SPLIT, group, 1)[:, 0] % np.uint64(10)
    names = ["train"] * 8 + ["val", "test"]
    return [names[value] for value in tenth]
