"""Pairs of listings of one product, and hard pairs of two.

Whatever is drawn is a function of the records' keys and a seed: the order of the records changes nothing.

Legend: R records, A attributes, P pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.counter import draw
from mlim_ray.evaluation.examples import Examples

Indices = NDArray[np.int64]


class Pairs(NamedTuple):
    """P pairs of records; each negative follows its positive and shares its first record."""

    first_P: Indices
    second_P: Indices
    is_same_P: NDArray[np.bool_]
    product_P: Indices
    """number of the first record's product: pairs are resampled by it"""

    @property
    def balance(self) -> float:
        """Share of positives, which is what chance reaches in average precision."""
        return float(self.is_same_P.mean())

    @property
    def num_products(self) -> int:
        """Products that the first records are of."""
        return len(np.unique(self.product_P))


def make_pairs(
    examples: Examples,
    products: Sequence[str],
    closeness: Sequence[Sequence[str | None]],
    *,
    num_positives: int,
    negatives_per_positive: int,
    num_candidates: int,
    seed: int,
) -> Pairs:
    """Positives, each with its negatives.

    Listings of a product stand in a drawn circle, and each is paired with the next; where there are more pairs than
    asked for, those of other products come before a second one of the same. A negative pairs the first listing with one
    of another product and the same label: of some drawn candidates the one that shares most attributes (hard
    negatives; our choice). No pair occurs twice.

    Args:
        examples: the records.
        products: the product of each record.
        closeness: the attributes that make negatives close, [A] columns of one value for each record.
        num_positives: most positives.
        negatives_per_positive: fewer where a label has not so many other records.
        num_candidates: of each negative.
        seed: of all draws.

    Raises:
        ValueError: no product has two records, or no negative can be made.
    """
    hash_R = examples.records.key_hash_R
    order_R = np.argsort(draw(seed, hash_R))
    number_of: dict[str, int] = {}
    members: dict[int, list[int]] = {}
    product_R = np.empty(len(hash_R), np.int64)
    for record in order_R.tolist():
        product = number_of.setdefault(products[record], len(number_of))
        product_R[record] = product
        members.setdefault(product, []).append(record)
    positives = _circles(members)[:num_positives]
    if not positives:
        raise ValueError(
            f"no product has two listings among the {len(examples)} records of split {examples.split}; match by other "
            "attributes with --pairs.match, or prepare a set with a group column"
        )
    codes_RA = np.stack([_codes(column) for column in ([None] * len(examples), *closeness)], 1)
    label_R = _codes(examples.labels)
    taken = {frozenset(pair) for pair in positives}
    rows: list[tuple[int, int, bool]] = []
    for first, second in positives:
        rows.append((first, second, True))
        candidates = order_R[(label_R[order_R] == label_R[first]) & (product_R[order_R] != product_R[first])]
        draws = draw(seed, hash_R[first], hash_R[candidates])
        candidates = candidates[np.argsort(draws)[:num_candidates]]
        same_RA = (codes_RA[candidates] == codes_RA[first]) & (codes_RA[first] >= 0)
        closest = candidates[np.argsort(-same_RA.sum(1), kind="stable")].tolist()
        new = [other for other in closest if frozenset((first, other)) not in taken][:negatives_per_positive]
        taken |= {frozenset((first, other)) for other in new}
        rows += [(first, other, False) for other in new]
    first_P, second_P, is_same_P = map(np.array, zip(*rows, strict=True))
    if is_same_P.all():
        raise ValueError(
            f"no label of split {examples.split} has listings of two products, so that there are no negatives; tell "
            "products by more than the label with --pairs.match, or prepare the set with another --label-column"
        )
    return Pairs(first_P, second_P, is_same_P, product_R[first_P])


def _circles(members: dict[int, list[int]]) -> list[tuple[int, int]]:
    """The first pair of each product, then the second ones, and so on; two listings have a single pair."""
    pairs = [
        (place, (records[place], records[(place + 1) % len(records)]))
        for records in members.values()
        if len(records) > 1
        for place in range(len(records) if len(records) > 2 else 1)
    ]
    return [pair for _, pair in sorted(pairs, key=lambda pair: pair[0])]


def _codes(values: Sequence[str | None] | NDArray[np.object_]) -> Indices:
    """A number for each value, -1 for None."""
    numbers: dict[str, int] = {}
    return np.array([-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values], np.int64)
