"""Objectives that compare records learn the same with any number of workers: real processes, joined by gloo."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed

from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import figures, make_config, make_masking, make_model, make_order, make_records

pytestmark = pytest.mark.slow

NUM_STEPS = 4
# Weights that do not move make the gradients of every step comparable.
STANDING = {"num_steps": NUM_STEPS, "log_every_steps": 1, "learning_rate": 1e-30, "max_gradient_norm": 1e9}


def work(rank: int, num_workers: int, micro_batch_size: int | None, folder: Path) -> None:
    """One of `num_workers` processes; the first one leaves the gradients and lines in the folder."""
    if num_workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting-{num_workers}", rank=rank, world_size=num_workers
        )
    contrast = 0.0 if micro_batch_size else 0.5
    config = make_config(
        train=STANDING | {"micro_batch_size": micro_batch_size},
        recon={"kind": "features"},
        itm={"weight": 2.0},
        itc={"weight": contrast},
        resolution={"start_ratio": 0.5, "small_steps_ratio": 0.5},
    )
    # An epoch of 35 records ends with a batch of three, which leaves a worker without any.
    order = make_order(config, 35)
    batches = resident_batches(
        make_records(35), order, make_masking(config), order.lanes_of(rank, num_workers), 0, NUM_STEPS
    )
    trainer, lines, gradients = Trainer(make_model(), config, order), [], []
    for step in range(NUM_STEPS):
        trainer.run(batches, step + 1, lines.append)
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.losses.parameters() if p.grad is not None]))
    if rank == 0:
        found = {"gradients": torch.stack(gradients), "lines": [figures(line) for line in lines]}
        torch.save(found, folder / f"results-{num_workers}.pt")
    if num_workers > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_any_number_of_workers_has_the_same_gradients(tmp_path: Path, micro_batch_size: int | None) -> None:
    context = multiprocessing.get_context("spawn")
    for num_workers in (1, 2, 4):
        # One worker computes whole shares: parts of them have to give the same.
        size = None if num_workers == 1 and micro_batch_size is None else micro_batch_size
        processes = [
            context.Process(target=work, args=(rank, num_workers, size, tmp_path)) for rank in range(num_workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    found = [torch.load(tmp_path / f"results-{num_workers}.pt") for num_workers in (1, 2, 4)]
    names = {"loss/mlm", "loss/recon", "loss/itm", "loss/total"}
    for other in found[1:]:
        torch.testing.assert_close(other["gradients"], found[0]["gradients"], rtol=1e-3, atol=1e-5)
        for line, expected in zip(other["lines"], found[0]["lines"], strict=True):
            assert names <= line.keys() and line == pytest.approx(expected, rel=1e-4)
