"""Which product each listing is of, and which split a product belongs to.

Legend: R records.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlim_ray.evaluation.examples import Examples

GROUP, LABEL, FIRST_WORD = "group", "label", "first_word"
_BETWEEN = "\x1f"
"""stands between the parts of a product's name; cleaned texts have no control characters"""


def part_of(examples: Examples, name: str) -> list[str | None]:
    """One of the parts that a product is told by, of each record: its group, label, first word of the title in lower
    case, or an attribute; None where the record has none.

    Raises:
        ValueError: the set has no such part.
    """
    if name == GROUP:
        return list(examples.groups)
    if name == LABEL:
        return list(examples.labels)
    if name == FIRST_WORD:
        return [next(iter(text.lower().split()), None) for text in examples.texts]
    if name not in examples.attributes:
        known = ", ".join((GROUP, LABEL, FIRST_WORD, *examples.attributes))
        raise ValueError(
            f"pairs.match: given {name}, expected some of {known}; prepare the set with --attribute-columns {name} to "
            "have that column in it"
        )
    return list(examples.attributes[name])


def products_of(examples: Examples, match: Sequence[str]) -> list[str | None]:
    """The product of each record: its parts, joined; None where one of them is missing.

    Raises:
        ValueError: the set has no such part.
    """
    parts = [part_of(examples, name) for name in match]
    return [None if None in of_record else _BETWEEN.join(map(str, of_record)) for of_record in zip(*parts, strict=True)]


@dataclass(frozen=True)
class ProductSplit:
    """The records of known products, such that no product is in both splits."""

    train_R: NDArray[np.bool_]
    test_R: NDArray[np.bool_]


def split_products(train: Sequence[str | None], test: Sequence[str | None]) -> ProductSplit:
    """Which records of two splits may be paired.

    A product with a pair in the test split is of that split alone, and its training records are left out; of any other
    product that occurs in training the test records are left out. Products told by a group column, which the splits
    keep together, lose none.
    """
    counts = Counter(product for product in test if product is not None)
    of_test = {product for product, count in counts.items() if count > 1}
    train_R = np.array([product is not None and product not in of_test for product in train], bool)
    of_train = {product for product, kept in zip(train, train_R, strict=True) if kept}
    test_R = np.array([product is not None and product not in of_train for product in test], bool)
    return ProductSplit(train_R, test_R)
