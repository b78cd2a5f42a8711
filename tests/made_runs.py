"""Run folders made by the core's loop alone: no Ray, a model of a few thousand weights, tens of milliseconds each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mlim_ray.config import PretrainConfig
from mlim_ray.config.files import config_text
from mlim_ray.training.batch import Batch
from mlim_ray.training.metrics import MetricsWriter
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records

NUM_RECORDS = 50
Change = Callable[[int, Trainer, Batch], Batch]


def train_run(
    folder: Path | str,
    config: PretrainConfig,
    *,
    stop_step: int | None = None,
    change: Change | None = None,
    manifest_sha256: str | None = "a" * 64,
) -> Path:
    """Train from the newest checkpoint in `folder`, or from the start, to the end or up to `stop_step`.

    `change` may spoil the model, or a step's batch, before the step is taken.
    """
    run = RunFolder(str(folder))
    run.write_text("config.yaml", config_text(config))
    if manifest_sha256 is not None:
        run.write_json("environment.json", {"data": "made", "manifest_sha256": manifest_sha256})
    order = make_order(config, NUM_RECORDS)
    trainer = Trainer(make_model(config.train.seed), config, order)
    checkpoint = run.checkpoints().latest().checkpoint
    if checkpoint is not None:
        trainer.model.load_state_dict(checkpoint.weights)
        trainer.load_state(checkpoint.trainer_state)
    metrics = MetricsWriter(run.path, trainer.step)

    def save() -> None:
        state = trainer.state()
        metrics.flush()
        run.checkpoints().save(trainer.step, trainer.model.state_dict(), state)

    def batches() -> Iterator[Batch]:
        lanes, num_steps = range(order.num_lanes), config.train.num_steps
        records = make_records(NUM_RECORDS)
        for batch in resident_batches(records, order, make_masking(config), lanes, trainer.step, num_steps):
            yield batch if change is None else change(trainer.step, trainer, batch)

    trainer.run(batches(), stop_step or config.train.num_steps, metrics.write, save)
    metrics.flush()
    return Path(folder)


def run_config(**train: object) -> PretrainConfig:
    """Twelve steps, a line every two, a checkpoint every five."""
    return make_config(train={"num_steps": 12, "log_every_steps": 2, "checkpoint_every_steps": 5} | train)
