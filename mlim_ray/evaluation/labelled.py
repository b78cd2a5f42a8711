"""Records with the value of one column, as numbers.

Legend: R records.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.records import Records
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.examples import Examples, Strings

LABEL_COLUMN = "label"
RARE = 10
"""a label with fewer training records is called rare (our choice)"""


@dataclass(frozen=True)
class Labelled:
    """Records and the number of each one's label."""

    records: Records
    label_R: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label_R)


@dataclass(frozen=True)
class LabelledSplits:
    """A column in the three splits. Numbers from `num_labels` on are of labels that no training record has."""

    train: Labelled
    val: Labelled
    test: Labelled
    num_labels: int
    num_rare_labels: int
    num_without: int
    """records of all splits that the column says nothing of; they are left out"""


def column_of(examples: Examples, name: str) -> Strings:
    """The column's values, None or empty where a record has none.

    Raises:
        ValueError: there is no such column.
    """
    if name == LABEL_COLUMN:
        return examples.labels
    if name not in examples.attributes:
        names = ", ".join([LABEL_COLUMN, *examples.attributes])
        raise ValueError(f"given the column {name}, expected one of {names}; prepare with it as an attribute")
    return examples.attributes[name]


def labelled_splits(bench: Bench, column: str, num_train: int, num_val: int, num_test: int) -> LabelledSplits:
    """The first records of each split that have a value in the column, at most so many of each.

    Raises:
        ValueError: there is no such column, or fewer than two labels in training, or a split without any.
    """
    splits = (bench.train, bench.val, bench.test)
    values = [column_of(examples, column) for examples in splits]
    have = [np.array([bool(value) for value in part], bool) for part in values]
    chosen = [np.flatnonzero(has)[:limit] for has, limit in zip(have, (num_train, num_val, num_test), strict=True)]
    names = [part[index].astype(str) for part, index in zip(values, chosen, strict=True)]
    train_names, counts = np.unique(names[0], return_counts=True)
    if len(train_names) < 2:
        raise ValueError(
            f"the column {column} has {len(train_names)} different values in {len(names[0])} training records, "
            "expected two or more; prepare the source with a --label-column that tells records apart"
        )
    for examples, part in zip(splits, names, strict=True):
        if len(part) == 0:
            raise ValueError(
                f"no record of the {examples.split} split has a value in the column {column}; prepare with a "
                "column that has some, or without --split-column to have the records split 80/10/10"
            )
    others = np.setdiff1d(np.concatenate(names[1:]), train_names)
    number = {name: i for i, name in enumerate([*train_names, *others])}
    train, val, test = (
        Labelled(examples.records.take(index), np.array([number[name] for name in part], np.int64))
        for examples, index, part in zip(splits, chosen, names, strict=True)
    )
    num_without = sum(int((~has).sum()) for has in have)
    return LabelledSplits(train, val, test, len(train_names), int((counts < RARE).sum()), num_without)
