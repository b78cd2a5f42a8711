"""The task of pairs as it is made from a set: listings, products, and pairs to learn from and to be measured on.

Legend: P pairs.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.pairs import PairsConfig
from mlim_ray.data.tokenizer import TextTokenizer
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.pair_making import Indices, Pairs, make_pairs
from mlim_ray.evaluation.pair_products import FIRST_WORD, part_of, products_of, split_products
from mlim_ray.evaluation.pair_texts import keep_words

Item = TypeVar("Item")


@dataclass(frozen=True)
class PairSide:
    """The pairs of one split and the listings that they are of."""

    examples: Examples
    """of known products; some of their titles' words may be dropped"""
    pairs: Pairs

    @property
    def listings_P2(self) -> Indices:
        """Which listings each pair is of."""
        return np.stack([self.pairs.first_P, self.pairs.second_P], 1)

    def texts(self, place: int) -> list[str]:
        """The titles of the first (0) or second (1) listings."""
        return [self.examples.texts[i] for i in self.listings_P2[:, place]]


@dataclass(frozen=True)
class PairFacts:
    """What is to be said of a task before any figure."""

    match: tuple[str, ...]
    num_train_pairs: int
    num_train_positives: int
    num_test_pairs: int
    num_test_positives: int
    balance: float
    """share of positives among the test pairs, which is what chance reaches"""
    num_train_products: int
    num_test_products: int
    num_products_in_both: int
    """0: it is what the task is made for"""
    num_left_out: int
    """records of no known product, or of one that is of the other split"""
    kept_words_ratio: float
    num_closeness_attributes: int
    """attributes that hard negatives were chosen by"""


@dataclass(frozen=True)
class PairTask:
    """All that an arm is trained and measured on."""

    train: PairSide
    test: PairSide
    facts: PairFacts


def make_task(train: Examples, test: Examples, tokenizer: TextTokenizer, config: PairsConfig, seed: int) -> PairTask:
    """The pairs of a set's training and test records.

    Raises:
        ValueError: the set lacks what products are told by, or has no pairs.
    """
    products = [products_of(examples, config.match) for examples in (train, test)]
    split = split_products(*products)
    sides, of_sides = [], []
    for examples, of_records, kept_R, most in zip(
        (train, test),
        products,
        (split.train_R, split.test_R),
        (config.num_train_positives, config.num_test_positives),
        strict=True,
    ):
        kept = np.flatnonzero(kept_R)
        examples, names = examples.take(kept), [str(of_records[i]) for i in kept]
        closeness = [list(values) for values in examples.attributes.values()]
        if FIRST_WORD in config.match:
            closeness.append(part_of(examples, FIRST_WORD))
        pairs = make_pairs(
            examples,
            names,
            closeness,
            num_positives=most,
            negatives_per_positive=config.negatives_per_positive,
            num_candidates=config.num_candidates,
            seed=seed,
        )
        sides.append(PairSide(keep_words(examples, tokenizer, config.kept_ratio, seed), pairs))
        of_sides.append({names[i] for i in np.unique([pairs.first_P, pairs.second_P])})
    in_both = of_sides[0] & of_sides[1]
    assert not in_both, f"products in both splits: {sorted(in_both)[:3]}"
    num_left_out = sum(len(examples) for examples in (train, test)) - sum(len(side.examples) for side in sides)
    train_pairs, test_pairs = sides[0].pairs, sides[1].pairs
    facts = PairFacts(
        match=config.match,
        num_train_pairs=len(train_pairs.first_P),
        num_train_positives=int(train_pairs.is_same_P.sum()),
        num_test_pairs=len(test_pairs.first_P),
        num_test_positives=int(test_pairs.is_same_P.sum()),
        balance=test_pairs.balance,
        num_train_products=len(of_sides[0]),
        num_test_products=len(of_sides[1]),
        num_products_in_both=len(in_both),
        num_left_out=num_left_out,
        kept_words_ratio=config.kept_ratio,
        num_closeness_attributes=len(train.attributes) + (FIRST_WORD in config.match),
    )
    return PairTask(sides[0], sides[1], facts)


Scores = dict[str, NDArray[np.float64]]
"""by what is shown of all listings, the score [P] of each test pair: the higher, the likelier of one product"""
