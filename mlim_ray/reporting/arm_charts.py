"""Dots with intervals of compared settings, one chart a figure of the probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlim_ray.reporting.interval_chart import Axis, IntervalChart, IntervalRow

if TYPE_CHECKING:
    from mlim_ray.evaluation.arm_comparison import ArmComparison, MeasuredArms

MOST_CHARTS = 12
"""of figures that differ between runs; tables have all of them"""


def arm_charts(comparison: ArmComparison) -> list[tuple[str, IntervalChart]]:
    """By a heading each: means with their intervals and single seeds, and the best that needs no pre-training."""
    measures = [one for one in comparison.measures if not one.is_constant][:MOST_CHARTS]
    return [
        (
            f"{one.task}, {one.name} ({'higher' if one.higher_is_better else 'lower'} is better)",
            _chart(one, comparison.reference),
        )
        for one in measures
    ]


def _chart(one: MeasuredArms, reference: str) -> IntervalChart:
    axis = Axis([value for arm, mean in one.means.items() for value in (mean.low, mean.high, *one.values[arm])])
    rows = tuple(
        IntervalRow(
            name=arm,
            role="best" if arm == one.best else "searched",
            note="best on average" if arm == one.best else "",
            centre=axis.place(mean.mean),
            low=axis.place(mean.low),
            high=axis.place(mean.high),
            points=tuple(axis.place(value) for value in one.values[arm]),
            earlier=None,
            figures=f"{mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        )
        for arm, mean in one.means.items()
    )
    return IntervalChart(rows, axis.ticks(), axis.place(one.means[reference].mean), f"mean of {reference}")
