"""Compare masking settings on one source or several: the same budget and seeds for all, a table and a verdict each."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlim_ray.config.compare import CompareRunConfig
from mlim_ray.data import storage
from mlim_ray.evaluation.arm_comparison import compare_arms
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.scores import scores_of
from mlim_ray.pipelines.arms import Cells
from mlim_ray.pipelines.cell_experiment import CellExperiment, Part
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.reporting.arm_charts import arm_charts
from mlim_ray.reporting.comparison_page import Section

EXPERIMENT = "compare_masking"
_QUESTION = (
    "Which masking setting learns most from these records within the same number of steps? Every setting ran with the "
    "same seeds, from the same starts, over the same records in the same order."
)


def compare_masking(request: RunRequest[CompareRunConfig]) -> dict[str, Any]:
    """Train every setting with every seed on every source, and compare; gives the summary that `--json` prints.

    Args:
        request: its `data` may be several sources with commas between them.

    Raises:
        ValueError: the request cannot be met; nothing was started.
    """
    parts = [
        Part(f"{number}-{_stem(source)}", f"on {source}", replace(request, data=source))
        for number, source in enumerate(sources_of(request.data), start=1)
    ]

    def conclude(found: Mapping[str, Cells]) -> list[Section]:
        return [_compared(request.config, heading, cells) for heading, cells in found.items()]

    return CellExperiment(EXPERIMENT, _QUESTION, request, parts, conclude).run()


def sources_of(data: str) -> list[str]:
    """The sources that `--data` names; a path that is there may have commas of its own.

    Raises:
        ValueError: there is nothing between two commas, or a source is named twice.
    """
    if "," not in data or storage.exists(data):
        return [data]
    sources = [source.strip() for source in data.split(",")]
    if not all(sources) or len(set(sources)) < len(sources):
        raise ValueError(
            f"--data: given {data}, expected one source or several different ones with commas between them"
        )
    return sources


def _compared(config: CompareRunConfig, heading: str, cells: Cells) -> Section:
    arms, seeds = config.compare.arms, config.seeds
    scores = {arm: [scores_of(cells[arm, seed]) for seed in seeds] for arm in arms}
    comparison = compare_arms(scores, seeds, config.train.num_steps)
    result = plain_result(comparison)
    return Section(heading, result, arm_charts(comparison))


def _stem(source: str) -> str:
    """A short name for a folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", source.rstrip("/").rpartition("/")[2]).strip("-") or "source"
