"""Whether the order of settings that a small model finds is that of a larger one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.rank_correlation import rank_correlation, spearman
from mlim_ray.evaluation.result import Cell, ResultTable
from mlim_ray.evaluation.scores import Score


@dataclass(frozen=True)
class TransferredMeasure:
    """One measure of all settings in both sizes."""

    task: str
    name: str
    higher_is_better: bool
    values: dict[str, dict[str, list[float]]]
    """by size and by setting, in the order of the seeds"""
    correlation: Estimate
    """of the settings' means in both sizes; its interval is from resampled settings"""
    of_seeds: dict[str, float]
    """by size, the mean rank correlation of two seeds: as far as the order is more than noise"""
    best: dict[str, str]
    """by size, the setting with the best mean"""
    regret_rank: int
    """place, from 1, that the smaller size's best setting has in the larger one"""

    def mean(self, size: str, arm: str) -> float:
        """Over seeds."""
        return float(np.mean(self.values[size][arm]))


@dataclass(frozen=True)
class Transfer:
    """Of the smaller size to the larger one."""

    sizes: list[str]
    seeds: list[int]
    num_steps: int
    measures: list[TransferredMeasure]

    def tables(self) -> list[ResultTable]:
        """The correlations, then the means that they are of."""
        small, large = self.sizes
        arms = list(self.measures[0].values[small])
        correlations: list[dict[str, Cell]] = [
            {
                "measured by": one.task,
                "figure": one.name,
                "rank correlation": one.correlation,
                f"two seeds, {small}": one.of_seeds[small],
                f"two seeds, {large}": one.of_seeds[large],
                f"best in {small}": one.best[small],
                f"best in {large}": one.best[large],
                f"place in {large} of the best in {small}": one.regret_rank,
            }
            for one in self.measures
        ]
        means: list[dict[str, Cell]] = [
            {"setting": arm}
            | {f"{one.task}, {one.name}, {size}": one.mean(size, arm) for one in self.measures for size in self.sizes}
            for arm in arms
        ]
        seeds = ", ".join(map(str, self.seeds))
        return [
            ResultTable(
                f"Rank correlation of {small} and {large}",
                f"Spearman's, of the means of {len(arms)} settings over the seeds {seeds}, {self.num_steps:,} steps "
                "each, with a 95 % interval from resampled settings. 1: the same order. The order of one size's single "
                "seeds correlates as the next columns say: where that is low, there is no order to be found.",
                correlations,
            ),
            ResultTable("Means over seeds", "Of every setting in both sizes.", means),
        ]

    def verdict(self) -> list[str]:
        """One sentence a measure."""
        small, large = self.sizes
        sentences = []
        for one in self.measures:
            found = one.correlation
            shown = f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
            if found.low > 0.0:
                what = f"what {small} ranks high, {large} does too"
            elif found.high < 0.0:
                what = f"{large} has rather the reverse order of {small}"
            else:
                what = f"no agreement found between the orders of {small} and {large}"
            sentences.append(
                f"{one.task}, {one.name}: rank correlation {shown}, {what}; the best setting of {small}, "
                f"{one.best[small]}, has place {one.regret_rank} of {len(one.values[small])} in {large}"
            )
        return sentences


def transfer(
    scores: Mapping[str, Mapping[str, Sequence[Sequence[Score]]]], seeds: Sequence[int], num_steps: int
) -> Transfer:
    """Compare the orders of settings in two sizes, by every score that all runs have and in which runs differ.

    Args:
        scores: by size, the smaller one first, and by setting, those of its runs in the order of the seeds.
        seeds: of the runs.
        num_steps: of every run.
    """
    small, large = scores
    tables = {
        size: {arm: [{(one.task, one.name): one for one in run} for run in runs] for arm, runs in arms.items()}
        for size, arms in scores.items()
    }
    first_runs = next(iter(tables[small].values()))
    measures = []
    for key, first in first_runs[0].items():
        if not all(key in run for arms in tables.values() for runs in arms.values() for run in runs):
            continue
        values = {
            size: {arm: [run[key].value for run in runs] for arm, runs in arms.items()} for size, arms in tables.items()
        }
        if any(len({value for of in arms.values() for value in of}) == 1 for arms in values.values()):
            continue
        means = {size: {arm: float(np.mean(of)) for arm, of in arms.items()} for size, arms in values.items()}
        orders = {size: _order(of, higher_first=first.higher_is_better) for size, of in means.items()}
        best = {size: order[0] for size, order in orders.items()}
        measures.append(
            TransferredMeasure(
                first.task,
                first.name,
                first.higher_is_better,
                values,
                rank_correlation(list(means[small].values()), [means[large][arm] for arm in means[small]]),
                {size: _of_seeds(arms) for size, arms in values.items()},
                best,
                orders[large].index(best[small]) + 1,
            )
        )
    return Transfer([small, large], list(seeds), num_steps, measures)


def _order(means: Mapping[str, float], *, higher_first: bool) -> list[str]:
    return sorted(means, key=lambda arm: means[arm], reverse=higher_first)


def _of_seeds(arms: Mapping[str, Sequence[float]]) -> float:
    by_seed = list(zip(*arms.values(), strict=True))
    found = [spearman(one, other) for one, other in combinations(by_seed, 2)]
    return float(np.mean(found))
