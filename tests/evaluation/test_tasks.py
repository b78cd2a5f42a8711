"""The table of tasks, and what each asks of a set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mlim_ray.config.base import Section
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.needs import Kinds, Needs, column_needs
from mlim_ray.evaluation.plain import plain, plain_result
from mlim_ray.evaluation.result import ResultTable
from mlim_ray.evaluation.tasks import TASKS, chosen_tasks, skipped_tasks
from tests.evaluation.benches import make_examples

KINDS = Kinds(3, 2, ("hue",))


def test_every_task_has_a_section_of_its_own_and_says_what_it_asks() -> None:
    config = EvaluateConfig()
    assert len({task.name for task in TASKS}) == len(TASKS)
    for task in TASKS:
        assert isinstance(task.section(config), Section) and isinstance(task.needs(task.section(config)), Needs)
        assert task.asks.endswith("?")


def test_tasks_run_in_the_order_of_the_table_whatever_the_order_they_are_named_in() -> None:
    names = [task.name for task in TASKS]
    assert [task.name for task in chosen_tasks(())] == names
    assert [task.name for task in chosen_tasks(names[::-1])] == names
    assert [task.name for task in chosen_tasks(["partner"])] == ["partner"]
    with pytest.raises(ValueError, match="--tasks: given partners, expected some of partner, "):
        chosen_tasks(["partner", "partners"])


def test_a_task_that_a_set_cannot_serve_is_skipped_with_its_reason_and_refused_by_name() -> None:
    poor, rich = Kinds(1, 0, ()), Kinds(3, 2, ("hue",))
    config = EvaluateConfig()
    skipped = skipped_tasks(TASKS, config, poor, poor)
    assert list(skipped) == ["classification", "pairs", "fill"]
    assert "--prepare.group-column" in skipped["pairs"] and "--prepare.label-column" in skipped["classification"]
    assert skipped_tasks(TASKS, config, rich, rich) == {}
    assert list(skipped_tasks(TASKS, config, rich, poor)) == ["classification", "pairs"]
    named = EvaluateConfig(tasks=("pairs",))
    with pytest.raises(ValueError, match="--tasks pairs: the set has no groups"):
        skipped_tasks(chosen_tasks(named.tasks), named, poor, poor)


def test_pairs_and_fill_need_the_columns_that_they_name() -> None:
    by_name = {task.name: task for task in TASKS}
    rules = EvaluateConfig.model_validate({"pairs": {"match": ("label", "hue", "first_word")}})
    assert by_name["pairs"].needs(rules.pairs) == Needs(labels=True, attributes=("hue",))
    assert by_name["pairs"].needs(EvaluateConfig().pairs) == Needs(groups=True)
    some = EvaluateConfig.model_validate({"fill": {"attributes": ("shade",)}})
    assert by_name["fill"].needs(some.fill).unmet(KINDS, KINDS) is not None
    assert by_name["fill"].needs(EvaluateConfig().fill).unmet(KINDS, KINDS) is None


@pytest.mark.parametrize(
    ("needs", "kinds", "reason"),
    [
        (Needs(), Kinds(0, 0, ()), None),
        (Needs(True, True, ("hue",), True), KINDS, None),
        (Needs(labels=True), Kinds(1, 9, ()), "no two labels; .*--prepare.label-column"),
        (Needs(groups=True), Kinds(9, 0, ()), "no groups .*--prepare.group-column"),
        (Needs(attributes=("hue", "shade")), KINDS, "no attribute shade; .*--prepare.attribute-columns shade"),
        (Needs(some_attribute=True), Kinds(9, 9, ()), "no attributes; "),
    ],
)
def test_what_a_set_lacks_is_said_with_the_mend(needs: Needs, kinds: Kinds, reason: str | None) -> None:
    for found in (needs.unmet(kinds, KINDS), needs.unmet(kinds._replace(attributes=kinds.attributes), kinds)):
        if reason is None:
            assert found is None
        else:
            with pytest.raises(ValueError, match=reason):
                raise ValueError(found)


def test_labels_and_attributes_are_asked_for_by_name() -> None:
    assert column_needs("label") == Needs(labels=True)
    assert column_needs("hue") == Needs(attributes=("hue",))


def test_kinds_are_counted() -> None:
    examples = make_examples("test", 9, 0)
    assert Kinds.of(examples) == Kinds(3, 4, ("hue",))


@dataclass(frozen=True)
class Made:
    figures: dict[str, Any]

    def tables(self) -> list[ResultTable]:
        return [ResultTable("t", "c", [{"x": Estimate(1.0, 0.5, float("nan"))}])]

    def verdict(self) -> list[str]:
        return ["so"]


def test_a_result_becomes_plain_values() -> None:
    made = Made({"a": (np.float32(0.5), np.int64(3)), "b": np.array([1, 2]), "c": Estimate(0.0, -1.0, float("inf"))})
    assert plain_result(made) == {
        "result": {"figures": {"a": [0.5, 3], "b": [1, 2], "c": {"mean": 0.0, "low": -1.0, "high": None}}},
        "tables": [{"title": "t", "caption": "c", "rows": [{"x": {"mean": 1.0, "low": 0.5, "high": None}}]}],
        "verdict": ["so"],
    }
    with pytest.raises(TypeError, match="holds a bytes"):
        plain({"png": b""})
