"""Several settings, each trained with the same seeds and the same budget: what may be said of them (contract C10)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlim_ray.evaluation.intervals import Estimate, difference_of, mean_of
from mlim_ray.evaluation.result import Cell, ResultTable
from mlim_ray.evaluation.scores import LIMIT, LINEAR, PARTNER, Score

_PROBES = (PARTNER, LINEAR)
_UNTRAINED = "untrained encoder"
"""what tasks call it"""
NO_DIFFERENCE = "no difference found"


@dataclass(frozen=True)
class MeasuredArms:
    """One measure of all settings."""

    task: str
    name: str
    higher_is_better: bool
    baselines: dict[str, float]
    """of what needs no pre-training"""
    values: dict[str, list[float]]
    """by setting, in the order of the seeds"""
    means: dict[str, Estimate]
    differences: dict[str, Estimate]
    """of every other setting to the reference, paired by seed; above zero where its values are higher"""

    @property
    def best(self) -> str:
        """The setting whose mean is the best."""
        choose = max if self.higher_is_better else min
        return choose(self.means, key=lambda arm: self.means[arm].mean)

    @property
    def is_constant(self) -> bool:
        """Whether it measures something else than what was trained, such as a baseline of a task: no run differs."""
        return self.task not in _PROBES and len({value for values in self.values.values() for value in values}) == 1

    @property
    def is_of_training(self) -> bool:
        """Whether it tells of what was trained: no baseline, and no untrained encoder, which may differ by setting."""
        return not self.is_constant and (self.task in _PROBES or _UNTRAINED not in self.name)

    def is_better(self, arm: str) -> bool | None:
        """Whether a setting is better than the reference; None where no difference is found."""
        difference = self.differences[arm]
        if not difference.excludes_zero:
            return None
        return (difference.mean > 0.0) == self.higher_is_better

    @property
    def differs(self) -> bool:
        """Whether any setting is found to differ from the reference."""
        return any(difference.excludes_zero for difference in self.differences.values())

    def beyond(self, baseline: float) -> list[str]:
        """The settings whose whole interval is better than a baseline."""
        if self.higher_is_better:
            return [arm for arm, mean in self.means.items() if mean.low > baseline]
        return [arm for arm, mean in self.means.items() if mean.high < baseline]


@dataclass(frozen=True)
class ArmComparison:
    """Intervals are of Student's t over seeds; none is corrected for the number of comparisons."""

    reference: str
    seeds: list[int]
    num_steps: int
    measures: list[MeasuredArms]

    @property
    def arms(self) -> list[str]:
        """All settings, the reference first."""
        return list(self.measures[0].means)

    def tables(self) -> list[ResultTable]:
        """The means with what needs no pre-training, then the differences."""
        others = [arm for arm in self.arms if arm != self.reference]
        rows: list[dict[str, Cell]] = []
        for measure in self.measures:
            head: dict[str, Cell] = {"measured by": measure.task, "figure": _arrowed(measure)}
            if measure.is_constant:
                rows.append({**head, "without it": measure.means[self.reference].mean, **dict.fromkeys(self.arms)})
                continue
            rows.append({**head, "without it": None, **measure.means})
            for name, value in measure.baselines.items():
                rows.append(
                    {
                        "measured by": measure.task,
                        "figure": f"- {name}",
                        "without it": value,
                        **dict.fromkeys(self.arms),
                    }
                )
        seeds = ", ".join(map(str, self.seeds))
        return [
            ResultTable(
                "Means over seeds",
                f"{self.num_steps:,} steps of every setting with the seeds {seeds}; 95 % intervals by Student's t. The "
                "column `without it` has what needs no pre-training, or does not depend on it. Partner probe: losses "
                "with the true partner, mean over hidden ratios; 1 is knowing frequencies and the mean colour only.",
                rows,
            ),
            ResultTable(
                f"Differences to {self.reference}",
                "Paired by seed, so that the start and the order of the records are the same. Where the interval holds "
                "0, no difference is found. Intervals are not corrected for their number: of twenty, one leaves 0 out "
                "by chance.",
                [
                    {"measured by": one.task, "figure": _arrowed(one), **{arm: one.differences[arm] for arm in others}}
                    for one in self.measures
                    if not one.is_constant
                ],
            ),
        ]

    def verdict(self) -> list[str]:
        """One sentence a figure of the probes; of a task of `mlim-ray evaluate`, those that differ."""
        sentences: list[str] = []
        for task in dict.fromkeys(measure.task for measure in self.measures):
            measures = [one for one in self.measures if one.task == task and one.is_of_training]
            told = [one for one in measures if task in _PROBES or one.differs]
            for one in told:
                sentences += self._sentences(one)
            num_open = len(measures) - len(told)
            if num_open:
                sentences.append(
                    f"{task}: {NO_DIFFERENCE} between {self.reference} and any other setting in "
                    f"{'any' if num_open == len(measures) else num_open} of its {len(measures)} figures"
                )
        return sentences

    def _sentences(self, one: MeasuredArms) -> Iterator[str]:
        head = f"{one.task}, {one.name}"
        parts = [
            f"{what}: {', '.join(f'{arm} by {_signed(one.differences[arm])}' for arm in arms)}"
            for what, arms in (
                (f"better than {self.reference}", [arm for arm in one.differences if one.is_better(arm) is True]),
                (f"worse than {self.reference}", [arm for arm in one.differences if one.is_better(arm) is False]),
            )
            if arms
        ]
        unclear = [arm for arm in one.differences if one.is_better(arm) is None]
        if unclear:
            parts.append(f"{NO_DIFFERENCE} to {', '.join(unclear)}")
        yield f"{head}: best on average {one.best} ({one.means[one.best].mean:.3f}); {'; '.join(parts)}"
        choose = max if one.higher_is_better else min
        known = {name: value for name, value in one.baselines.items() if name != LIMIT}
        if known:
            name = choose(known, key=lambda key: known[key])
            beyond = one.beyond(known[name])
            which = "every setting" if len(beyond) == len(one.means) else ", ".join(beyond) or "no setting"
            yield f"{head}: {which} better than {name} ({known[name]:.3f}) with the whole interval"


def compare_arms(
    scores: Mapping[str, Sequence[Sequence[Score]]], seeds: Sequence[int], num_steps: int
) -> ArmComparison:
    """Compare settings by every score that all of their runs have.

    Args:
        scores: by setting, those of its runs in the order of the seeds; the first setting is the reference.
        seeds: of the runs, two or more.
        num_steps: of every run.

    Raises:
        ValueError: there are fewer seeds, or a setting has not one run a seed.
    """
    reference = next(iter(scores))
    tables = {arm: [{(one.task, one.name): one for one in run} for run in runs] for arm, runs in scores.items()}
    for arm, runs in tables.items():
        if len(runs) != len(seeds):
            raise ValueError(f"{arm} has {len(runs)} runs, expected one for each of {len(seeds)} seeds")
    measures = []
    for key, first in tables[reference][0].items():
        if not all(key in run for runs in tables.values() for run in runs):
            continue
        values = {arm: [run[key].value for run in runs] for arm, runs in tables.items()}
        measures.append(
            MeasuredArms(
                first.task,
                first.name,
                first.higher_is_better,
                dict(first.baselines),
                values,
                {arm: mean_of(of_arm) for arm, of_arm in values.items()},
                {arm: difference_of(of_arm, values[reference]) for arm, of_arm in values.items() if arm != reference},
            )
        )
    return ArmComparison(reference, list(seeds), num_steps, measures)


def _arrowed(one: MeasuredArms) -> str:
    return f"{one.name} ({'higher' if one.higher_is_better else 'lower'} is better)"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
