"""Measuring finished models on the cluster: probes, reconstruction pictures, and the exported model folder."""

from dataclasses import dataclass
from typing import Any

import ray
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.cross_modal import CrossModalRow, cross_modal_rows
from mlim_ray.evaluation.evaluation import Evaluation, evaluate
from mlim_ray.evaluation.held_out import HeldOut, limits_of, load_held_out
from mlim_ray.evaluation.limits import ProbeLimits
from mlim_ray.evaluation.linear_probe import baselines
from mlim_ray.evaluation.pictures import ReconstructionRow, reconstruction_rows
from mlim_ray.training.build import build_model, model_config
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.export import export_model


@dataclass(frozen=True)
class Yardstick:
    """What every model of a run or search is measured with; made once."""

    held_out: HeldOut
    limits: ProbeLimits | None
    baselines: dict[str, float] | None


@dataclass(frozen=True)
class Measured:
    """What measuring a model gave."""

    evaluation: Evaluation
    pictures: list[ReconstructionRow]
    cross_modal: list[CrossModalRow]
    """of the same records; only where the model is exported"""


@ray.remote(num_cpus=0)
def make_yardstick(config: PretrainConfig, prepared: PreparedSet, num_threads: int) -> Yardstick:
    """Held-out records, limits, and what needs no pre-training."""
    torch.set_num_threads(num_threads)
    skips_damaged = config.feed.skips_damaged
    num_cells = model_config(config, prepared).num_cells
    held_out = load_held_out(prepared, config.probe, num_cells, skips_damaged=skips_damaged)
    reference = None
    if held_out.labelled_train is not None and held_out.labelled_held_out is not None:
        untrained = build_model(config, prepared)
        reference = baselines(untrained, held_out.labelled_train, held_out.labelled_held_out, held_out.vocab_size)
    return Yardstick(held_out, limits_of(prepared, held_out), reference)


@ray.remote(num_cpus=0)
def measure(
    config: PretrainConfig,
    prepared: PreparedSet,
    checkpoints: str,
    yardstick: Yardstick,
    num_threads: int,
    export_to: str | None,
) -> Measured:
    """Measure the newest checkpoint in the folder `checkpoints`, and export its model if a folder is named."""
    torch.set_num_threads(num_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config, prepared, device)
    checkpoint, refused = CheckpointStore(checkpoints).latest()
    if checkpoint is None:
        raise ValueError("; ".join([f"{checkpoints} holds no checkpoint to measure", *map(str, refused)]))
    model.load_state_dict(checkpoint.weights)
    if export_to is not None:
        export_model(model, prepared, export_to)
    held_out = yardstick.held_out
    tokenizer = prepared.tokenizer().tokenizer
    pieces = [tokenizer.id_to_token(index) or "" for index in range(model.config.vocab_size)]
    return Measured(
        evaluate(model, held_out, yardstick.limits, yardstick.baselines),
        reconstruction_rows(model, held_out.probe, held_out.texts, pieces),
        [] if export_to is None else cross_modal_rows(model, held_out.probe, pieces),
    )


def gpu_options(num_gpus: float) -> dict[str, Any]:
    """Ray options of a task that measures where the models were trained."""
    return {"num_gpus": num_gpus} if num_gpus > 0 else {}
