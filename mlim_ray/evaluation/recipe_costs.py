"""What recipes cost, and what each learned of its own targets: the rest of a comparison's table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlim_ray.evaluation.intervals import Estimate, mean_of
from mlim_ray.evaluation.result import Cell, ResultTable

_SAME_SIZE = 0.1
"""share of parameters by which recipes may differ and still count as of one size (our choice)"""
_LEAST_RATIO = 1.2


@dataclass(frozen=True)
class RecipeCosts:
    """Of one recipe's runs."""

    name: str
    num_parameters: int
    gflops_per_record: float
    mib: float
    samples_per_s: Estimate | None
    """None where too few runs went through without a break"""
    own: Mapping[str, Estimate]
    """by loss: with a wrong partner, over that with the true one"""


@dataclass(frozen=True)
class CostsResult:
    """Of all recipes, the reference first."""

    recipes: list[RecipeCosts]

    def tables(self) -> list[ResultTable]:
        """One row a recipe."""
        first = self.recipes[0]
        rows: list[dict[str, Cell]] = [
            {
                "recipe": one.name,
                "parameters": one.num_parameters,
                f"of {first.name}'s": round(one.num_parameters / first.num_parameters, 3),
                "GFLOP a record": round(one.gflops_per_record, 4),
                "MiB of a step": round(one.mib, 1),
                "samples/s": one.samples_per_s,
                "own words": one.own.get("mlm"),
                "own cells": one.own.get("recon"),
            }
            for one in self.recipes
        ]
        return [
            ResultTable(
                "What it costs, and what it learned of its own targets",
                "Parameters that are trained, heads of objectives included; operations of products forwards and back; "
                "memory: weights, gradients, Adam's moments, copies, and what the way back needs, counted and not "
                "measured; samples/s with as many runs side by side as the machine took, so only their order tells. "
                "Own words and cells: held-out loss of the recipe's own hidden targets with a wrong partner over that "
                "with the true one; 1: the other side is not read.",
                rows,
            )
        ]

    def verdict(self) -> list[str]:
        """Who is not of one size, and who does not read the other side."""
        first = self.recipes[0].num_parameters
        larger = [
            f"{one.name} {one.num_parameters / first:.2f}"
            for one in self.recipes
            if abs(one.num_parameters / first - 1) > _SAME_SIZE
        ]
        blind = [
            one.name
            for one in self.recipes
            if one.own and max(estimate.mean for estimate in one.own.values()) < _LEAST_RATIO
        ]
        size = f"parameters differ by more than 10 % in: {', '.join(larger)} times {self.recipes[0].name}'s"
        seen = f"a wrong partner costs less than {_LEAST_RATIO} times as much on the own targets of: {', '.join(blind)}"
        return [
            size if larger else "parameters differ by 10 % at most",
            seen
            if blind
            else f"a wrong partner costs every recipe {_LEAST_RATIO} times as much or more on its own targets",
        ]


def recipe_costs(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> CostsResult:
    """From the evaluations of each recipe's runs, as `train_cell` leaves them."""
    found = []
    for name, evaluations in runs.items():
        costs = evaluations[0]["costs"]
        own: dict[str, list[float]] = {}
        for evaluation in evaluations:
            for one in evaluation["own_targets"]:
                own.setdefault(one["name"], []).append(one["shuffled"] / max(one["paired"], 1e-12))
        speeds = [speed for evaluation in evaluations if (speed := evaluation["samples_per_s"]) is not None]
        found.append(
            RecipeCosts(
                name,
                costs["num_parameters"],
                costs["flops_per_record"] / 1e9,
                costs["num_bytes"] / 2**20,
                _mean(speeds),
                {loss: mean_of(ratios) for loss, ratios in own.items()},
            )
        )
    return CostsResult(found)


def _mean(values: Sequence[float]) -> Estimate | None:
    return mean_of(values) if len(values) > 1 else None
