"""The evaluations that there are: what each asks, what it needs of a set, and the function that does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.fill import FillConfig
from mlim_ray.config.pairs import PairsConfig
from mlim_ray.config.pictures import PicturesConfig
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.classification import classify
from mlim_ray.evaluation.fill import fill
from mlim_ray.evaluation.needs import Kinds, Needs, column_needs
from mlim_ray.evaluation.pairs import pairs
from mlim_ray.evaluation.partner import partner
from mlim_ray.evaluation.picture_sheets import picture_sheets
from mlim_ray.evaluation.picture_task import pictures, sample_pictures
from mlim_ray.evaluation.result import Result
from mlim_ray.evaluation.retrieval import retrieve


@dataclass(frozen=True)
class Task:
    """One evaluation."""

    name: str
    """also that of its section in `EvaluateConfig`"""
    asks: str
    run: Callable[[Bench, Any], Result]
    needs: Callable[[Any], Needs] = lambda _: Needs()
    """by its config"""
    draw: Callable[[Bench, Any], dict[str, bytes]] | None = None
    """PNG files that belong to it, by name"""

    def section(self, config: EvaluateConfig) -> Any:
        """Its config."""
        return getattr(config, self.name)


def _fill_needs(config: FillConfig) -> Needs:
    """The attributes that are filled; where none is named, any."""
    return Needs(attributes=config.attributes, some_attribute=True)


def _pairs_need(config: PairsConfig) -> Needs:
    """What the parts are read from that listings of one product have in common."""
    own = {"group", "label", "first_word"}
    attributes = tuple(name for name in config.match if name not in own)
    return Needs(labels="label" in config.match, groups="group" in config.match, attributes=attributes)


def _sheets(bench: Bench, config: PicturesConfig) -> dict[str, bytes]:
    sample = sample_pictures(bench, config)
    return picture_sheets(sample.rows, sample.others)


TASKS: tuple[Task, ...] = (
    Task("partner", "does each side use the other?", partner),
    Task("classification", "is the label told better?", classify, lambda config: column_needs(config.column)),
    Task("retrieval", "does a title find its picture, and a picture its title?", retrieve),
    Task("pairs", "are two listings of one product?", pairs, _pairs_need),
    Task("fill", "is an attribute told whose words are hidden?", fill, _fill_needs),
    Task("pictures", "what does the model paint and read where much is hidden?", pictures, draw=_sheets),
)
"""In the order in which they run."""


def chosen_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of these names in the table's order; all of them if none are named.

    Raises:
        ValueError: a name is no task's.
    """
    known = [task.name for task in TASKS]
    for name in names:
        if name not in known:
            raise ValueError(f"--tasks: given {name}, expected some of {', '.join(known)}; leave it out for all")
    return [task for task in TASKS if not names or task.name in names]


def skipped_tasks(tasks: Sequence[Task], config: EvaluateConfig, train: Kinds, test: Kinds) -> dict[str, str]:
    """Why a set cannot serve some of the tasks, by their names.

    Raises:
        ValueError: they were asked for by name.
    """
    skipped = {}
    for task in tasks:
        reason = task.needs(task.section(config)).unmet(train, test)
        if reason is not None and config.tasks:
            raise ValueError(f"--tasks {task.name}: {reason}")
        if reason is not None:
            skipped[task.name] = reason
    return skipped
