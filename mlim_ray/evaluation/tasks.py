"""The evaluations that there are: what each asks of a set, and the function that does it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.partner import partner
from mlim_ray.evaluation.result import Result


class Needs(NamedTuple):
    """What a set has to have beside pictures and titles."""

    labels: bool = False
    groups: bool = False
    attributes: tuple[str, ...] = ()
    """columns that it has to have been prepared with"""
    some_attribute: bool = False
    """whether one attribute at least is needed, whichever"""


@dataclass(frozen=True)
class Task:
    """One evaluation."""

    name: str
    """also that of its section in `EvaluateConfig`"""
    about: str
    run: Callable[[Bench, Any], Result]
    needs: Callable[[Any], Needs] = lambda _: Needs()
    """of its config"""

    def config(self, config: EvaluateConfig) -> Any:
        """The task's own section."""
        return getattr(config, self.name)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("partner", "losses with the true, another record's and no partner", partner),
    )
}
"""In the order in which they run."""


def chosen_tasks(names: Iterable[str]) -> list[Task]:
    """The tasks of these names, all of them if there are none. Raises ValueError for a name that is no task's."""
    wanted = list(names)
    for name in wanted:
        if name not in TASKS:
            raise ValueError(f"--tasks: given {name}, expected some of {', '.join(TASKS)}; leave it out for all")
    return [task for name, task in TASKS.items() if not wanted or name in wanted]


def what_lacks(needs: Needs, train: "Kinds", test: "Kinds") -> str | None:
    """Why a set cannot serve a task, and the mend; None where it can."""
    for has, wanted, what, flag in (
        (min(train.num_labels, test.num_labels) > 1, needs.labels, "two labels or more", "--prepare.label-column"),
        (min(train.num_groups, test.num_groups) > 0, needs.groups, "groups", "--prepare.group-column"),
    ):
        if wanted and not has:
            return f"the set has no {what}; name their column with {flag}"
    missing = [name for name in needs.attributes if name not in train.attributes]
    if missing:
        return f"the set has no attribute {', '.join(missing)}; prepare it with --attribute-columns {','.join(missing)}"
    if needs.some_attribute and not train.attributes:
        return "the set has no attributes; name some of the source's columns with --prepare.attribute-columns"
    return None


class Kinds(NamedTuple):
    """How much there is of what tasks need in a split."""

    num_labels: int
    """different ones"""
    num_groups: int
    """of two records or more"""
    attributes: tuple[str, ...]
