"""Compare recipes on one source: each is tuned over the same learning rates, then all run with the same budget."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mlim_ray.config.recipes_run import RecipesRunConfig
from mlim_ray.evaluation.arm_comparison import compare_arms
from mlim_ray.evaluation.evaluation import Evaluation
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.recipe_costs import recipe_costs
from mlim_ray.evaluation.result import ResultTable
from mlim_ray.evaluation.scores import PARTNER, scores_of
from mlim_ray.pipelines.arms import Cells
from mlim_ray.pipelines.cell_experiment import CellExperiment, Part
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.reporting.arm_charts import arm_charts
from mlim_ray.reporting.comparison_page import Section

EXPERIMENT = "compare_recipes"
_TUNING, _COMPARISON = "learning rates", "recipes"
_QUESTION = (
    "Which recipe learns most from these records within the same number of steps? Every recipe saw the same records in "
    "the same order with the same seeds, at the learning rate that suited it best of the same few."
)


def compare_recipes(request: RunRequest[RecipesRunConfig]) -> dict[str, Any]:
    """Tune, train, measure and compare; gives the summary that `--json` prints.

    Raises:
        ValueError: the request cannot be met; nothing was started.
    """
    config = request.config
    tuning = Part("1-tuning", _TUNING, replace(request, config=_tuning(config)))
    comparison = Part("2-recipes", _COMPARISON, request, partial(_tuned, request))
    parts = [tuning, comparison] if _needs_tuning(config) else [replace(comparison, then=None)]
    return CellExperiment(EXPERIMENT, _QUESTION, request, parts, partial(_conclude, config)).run()


@dataclass(frozen=True)
class TunedRates:
    """The score of every learning rate, and the best of each recipe."""

    scores: dict[str, dict[str, float]]
    """by recipe and factor"""
    num_steps: int

    def best(self, recipe: str) -> str:
        """The factor with the lowest score."""
        return min(self.scores[recipe], key=self.scores[recipe].__getitem__)

    def tables(self) -> list[ResultTable]:
        """One row a recipe."""
        rows: list[dict[str, Any]] = [
            {"recipe": recipe, **{f"x {factor}": value for factor, value in scores.items()}, "best": self.best(recipe)}
            for recipe, scores in self.scores.items()
        ]
        caption = (
            f"Partner probe (mean of MLM and RECON, lower is better) after {self.num_steps:,} steps with one seed that "
            "is not compared, by the learning rate over the size's own."
        )
        return [ResultTable("Learning rates", caption, rows)]

    def verdict(self) -> list[str]:
        """What was chosen, and where the best may lie beyond what was tried."""
        found = [f"{recipe} x {self.best(recipe)}" for recipe in self.scores]
        at_end = [
            recipe
            for recipe, scores in self.scores.items()
            if len(scores) > 2 and self.best(recipe) in (min(scores, key=float), max(scores, key=float))
        ]
        sentences = [f"learning rates, over the size's own: {', '.join(found)}"]
        if at_end:
            sentences.append(f"at the end of what was tried, so a better one may lie beyond: {', '.join(at_end)}")
        return sentences


def _needs_tuning(config: RecipesRunConfig) -> bool:
    return len(config.compare.learning_rates) > 1 and any("@" not in arm for arm in config.compare.arms)


def _tuning(config: RecipesRunConfig) -> RecipesRunConfig:
    """Every recipe at every learning rate, with one seed after those that are compared."""
    compare = config.compare
    arms = tuple(f"{arm}@{rate:g}" for arm in compare.arms if "@" not in arm for rate in compare.learning_rates)
    train = config.train.model_copy(
        update={
            "seed": config.train.seed + compare.num_seeds,
            "num_steps": compare.tuning_steps or config.train.num_steps,
        }
    )
    tuned = compare.model_copy(update={"arms": arms or compare.arms, "num_seeds": 1, "tasks": ()})
    return config.model_copy(update={"train": train, "compare": tuned})


def _tuned(request: RunRequest[RecipesRunConfig], cells: Mapping[str, Cells]) -> RunRequest[RecipesRunConfig]:
    """The comparison, with the best learning rate of each recipe."""
    rates = _rates(request.config, cells[_TUNING])
    compare = request.config.compare
    arms = tuple(arm if "@" in arm else f"{arm}@{rates.best(arm)}" for arm in compare.arms)
    config = request.config.model_copy(update={"compare": compare.model_copy(update={"arms": arms})})
    return replace(request, config=config)


def _rates(config: RecipesRunConfig, cells: Cells) -> TunedRates:
    scores: dict[str, dict[str, float]] = {}
    for (arm, _), evaluation in cells.items():
        recipe, _, factor = arm.partition("@")
        scores.setdefault(recipe, {})[factor] = _score(evaluation)
    return TunedRates(scores, config.compare.tuning_steps or config.train.num_steps)


def _score(evaluation: Evaluation) -> float:
    """As a search ranks trials unless it is told otherwise."""
    return float(np.mean([score.value for score in scores_of(evaluation) if score.task == PARTNER]))


def _conclude(config: RecipesRunConfig, found: Mapping[str, Cells]) -> list[Section]:
    sections = []
    if _TUNING in found:
        sections.append(Section(_TUNING, plain_result(_rates(config, found[_TUNING]))))
    if _COMPARISON in found:
        runs: dict[str, list[Evaluation]] = {}
        for arm in config.compare.arms:
            runs[arm] = [
                evaluation
                for (name, _), evaluation in sorted(found[_COMPARISON].items(), key=lambda cell: cell[0][1])
                if name == arm or name.partition("@")[0] == arm
            ]
        scores = {name: [scores_of(evaluation) for evaluation in of_name] for name, of_name in runs.items()}
        comparison = compare_arms(scores, config.seeds, config.train.num_steps)
        sections.append(Section(_COMPARISON, plain_result(comparison), arm_charts(comparison)))
        sections.append(Section("costs", plain_result(recipe_costs(runs))))
    return sections
