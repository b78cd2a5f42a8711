"""What an evaluation asks of a set beside pictures and titles."""

from collections import Counter
from typing import NamedTuple

from mlim_ray.evaluation.examples import Examples


class Kinds(NamedTuple):
    """How much there is in a split of what evaluations may ask for."""

    num_labels: int
    """different ones"""
    num_groups: int
    """of two records or more"""
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, examples: Examples) -> "Kinds":
        """What these records have."""
        labels = {label for label in examples.labels if label}
        groups = Counter(group for group in examples.groups if group is not None)
        return cls(len(labels), sum(count > 1 for count in groups.values()), tuple(examples.attributes))


class Needs(NamedTuple):
    """What a set has to have."""

    labels: bool = False
    groups: bool = False
    attributes: tuple[str, ...] = ()
    """columns that it has to have been prepared with"""
    some_attribute: bool = False
    """whether one attribute at least is needed, whichever"""

    def unmet(self, train: Kinds, test: Kinds) -> str | None:
        """Why a set cannot serve, and the mend; None where it can."""
        if self.labels and min(train.num_labels, test.num_labels) < 2:
            return "the set has no two labels; name their column with --prepare.label-column"
        if self.groups and min(train.num_groups, test.num_groups) < 1:
            return "the set has no groups of several records; name their column with --prepare.group-column"
        missing = ",".join(name for name in self.attributes if name not in train.attributes)
        if missing:
            return f"the set has no attribute {missing}; keep it with --prepare.attribute-columns {missing}"
        if self.some_attribute and not train.attributes:
            return "the set has no attributes; keep some columns of its source with --prepare.attribute-columns"
        return None


def column_needs(column: str) -> Needs:
    """Of an evaluation that asks about the labels or one attribute."""
    return Needs(labels=True) if column == "label" else Needs(attributes=(column,))
