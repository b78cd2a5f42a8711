"""Train masking settings in two sizes of the model, and correlate their orders."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlim_ray.config import AUTO
from mlim_ray.config.transfer import TransferRunConfig
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.scores import scores_of
from mlim_ray.evaluation.transfer import transfer
from mlim_ray.model.sizes import SIZES
from mlim_ray.pipelines.arms import Cells
from mlim_ray.pipelines.cell_experiment import CellExperiment, Part
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.reporting.comparison_page import Section

EXPERIMENT = "transfer"


def run_transfer(request: RunRequest[TransferRunConfig]) -> dict[str, Any]:
    """Train every setting with every seed in both sizes, and correlate; gives the summary that `--json` prints.

    Raises:
        ValueError: the request cannot be met; nothing was started.
    """
    config = request.config
    sizes = (config.model.size, config.transfer.larger)
    parts = [Part(size, size, _in_size(request, size)) for size in sizes]

    def conclude(found: Mapping[str, Cells]) -> list[Section]:
        if len(found) < len(parts):
            return []
        scores = {
            size: {arm: [scores_of(cells[arm, seed]) for seed in config.seeds] for arm in config.compare.arms}
            for size, cells in found.items()
        }
        result = transfer(scores, config.seeds, config.train.num_steps)
        return [Section(f"from {sizes[0]} to {sizes[1]}", plain_result(result))]

    question = (
        f"Does the order of masking settings that a {sizes[0]} model finds hold for a {sizes[1]} one? Every setting "
        "ran in both sizes with the same seeds, over the same records in the same order."
    )
    return CellExperiment(EXPERIMENT, question, request, parts, conclude).run()


def _in_size(request: RunRequest[TransferRunConfig], size: str) -> RunRequest[TransferRunConfig]:
    config = request.config
    if size == config.model.size:
        return request
    # Both sizes are kept, or the config would be refused.
    values = config.model_dump()
    values["model"]["size"], values["transfer"]["larger"] = size, config.model.size
    # Where the config has been resolved already, for the smaller size.
    values["prepare"]["image_size"] = AUTO
    if config.model.size != AUTO and config.train.learning_rate == SIZES[config.model.size].learning_rate:
        values["train"]["learning_rate"] = AUTO
    return replace(request, config=TransferRunConfig.model_validate(values))
