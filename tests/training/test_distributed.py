"""The number of workers does not change what is learned (contract C3): real processes, joined by gloo."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from mlim_ray.config import PretrainConfig
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.distributed import wait_for_all
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import digests, figures, make_config, make_masking, make_model, make_order, make_records, timeless

pytestmark = pytest.mark.slow

NUM_RECORDS, NUM_STEPS, SAVED_AT = 50, 8, 3
COUNTS = (1, 2, 3, 4)
MICRO_BATCH = 2
MASKING = {"kind": "mam", "image_heavy_probability": 0.6, "text_heavy_probability": 0.2}
LEARNING = {"num_steps": NUM_STEPS, "log_every_steps": 2, "seed": 1}
# Weights that do not move make the gradients of every step comparable.
STANDING = LEARNING | {"learning_rate": 1e-30, "max_gradient_norm": 1e9}


def make_run(config: PretrainConfig, rank: int, num_workers: int, start_step: int = 0) -> tuple[Trainer, Any]:
    order = make_order(config, NUM_RECORDS)
    batches = resident_batches(
        make_records(NUM_RECORDS),
        order,
        make_masking(config),
        order.lanes_of(rank, num_workers),
        start_step,
        NUM_STEPS,
    )
    return Trainer(make_model(), config, order), batches


def gradients_of_every_step(rank: int, num_workers: int) -> torch.Tensor:
    trainer, batches = make_run(
        make_config(train=STANDING, masking=MASKING, recon={"target": "masked"}), rank, num_workers
    )
    gradients = []
    for step in range(NUM_STEPS):
        trainer.run(batches, step + 1, [].append)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()]))
    return torch.stack(gradients)


def learn(rank: int, num_workers: int, folder: Path) -> dict[str, Any]:
    """Lines of a run, of the same run in small parts of batches, and of the run resumed."""
    config = make_config(train=LEARNING | {"checkpoint_every_steps": SAVED_AT}, masking=MASKING)
    store = CheckpointStore(str(folder / f"checkpoints-{num_workers}"))
    trainer, batches = make_run(config, rank, num_workers)
    lines: list[dict[str, Any]] = []

    def save() -> None:
        state = trainer.state()
        if rank == 0 and trainer.step == SAVED_AT:
            store.save(trainer.step, trainer.model.state_dict(), state)

    trainer.run(batches, NUM_STEPS, lines.append, save)
    wait_for_all()
    in_parts = make_config(train=LEARNING | {"micro_batch_size": MICRO_BATCH}, masking=MASKING)
    parted, batches = make_run(in_parts, rank, num_workers)
    parted_lines: list[dict[str, Any]] = []
    parted.run(batches, NUM_STEPS, parted_lines.append)
    return {
        "lines": timeless(lines),
        "lines_in_parts": timeless(parted_lines),
        "lines_resumed": resume(rank, num_workers, num_workers, folder),
    }


def resume(rank: int, num_workers: int, saved_by: int, folder: Path) -> list[dict[str, Any]]:
    """Lines of a run that goes on where `saved_by` workers saved."""
    config = make_config(train=LEARNING | {"checkpoint_every_steps": SAVED_AT}, masking=MASKING)
    checkpoint = CheckpointStore(str(folder / f"checkpoints-{saved_by}")).latest().checkpoint
    assert checkpoint is not None
    resumed, batches = make_run(config, rank, num_workers, checkpoint.step)
    resumed.model.load_state_dict(checkpoint.weights)
    resumed.load_state(checkpoint.trainer_state)
    lines: list[dict[str, Any]] = []
    resumed.run(batches, NUM_STEPS, lines.append, lambda: resumed.state() and None)
    return timeless(lines)


def work(rank: int, num_workers: int, folder: Path) -> None:
    """One of `num_workers` processes; the first one leaves the results in the folder.

    A second time it only goes on from what every other number of workers saved.
    """
    if num_workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting-{num_workers}", rank=rank, world_size=num_workers
        )
    path = folder / f"results-{num_workers}.pt"
    if path.exists():
        results = torch.load(path, weights_only=True)
        results["resumed_from"] = {saved_by: resume(rank, num_workers, saved_by, folder) for saved_by in COUNTS}
    else:
        results = {"gradients": gradients_of_every_step(rank, num_workers), **learn(rank, num_workers, folder)}
    if num_workers > 1:
        # Nobody may find the results of this time before it has looked for those of the last.
        wait_for_all()
    if rank == 0:
        torch.save(results, path)
    if num_workers > 1:
        torch.distributed.destroy_process_group()
        (folder / f"meeting-{num_workers}").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What 1, 2, 3 and 4 workers made of the same run, and of each other's checkpoints."""
    folder = tmp_path_factory.mktemp("workers")
    # A fork server imports torch once for all of them, and has no threads that a fork would break.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlim_ray.training.trainer", "mlim_ray.training.stream"])
    for _ in ("learn", "resume"):
        for num_workers in COUNTS[1:]:
            workers = [context.Process(target=work, args=(rank, num_workers, folder)) for rank in range(num_workers)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(240)
            assert [worker.exitcode for worker in workers] == [0] * num_workers
        work(0, 1, folder)
    return {n: torch.load(folder / f"results-{n}.pt", weights_only=True) for n in COUNTS}


def test_the_run_has_the_hard_cases() -> None:
    config = make_config(train=LEARNING, masking=MASKING)
    parts = [list(make_run(config, rank, 3)[1]) for rank in range(3)]
    num_records = np.array([[len(batch.mode_B) for batch in part] for part in parts])
    num_pieces = np.array([[batch.token_hidden_BT.sum() for batch in part] for part in parts])
    without_pieces = (num_pieces == 0) & (num_records > 0) & (num_pieces.sum(0) > 0)
    assert (num_records == 0).any() and without_pieces.any()
    # Means of local means would be far off.
    assert np.ptp(num_pieces, axis=0).max() > 5


@pytest.mark.parametrize("num_workers", COUNTS[1:])
def test_gradients_are_those_of_one_worker(results: dict[int, dict[str, Any]], num_workers: int) -> None:
    one, several = results[1]["gradients"], results[num_workers]["gradients"]
    difference = (several - one).norm(dim=1) / one.norm(dim=1)
    assert difference.max() < 1e-6


def check_close(lines: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for line, other in zip(lines, expected, strict=True):
        assert figures(line) == pytest.approx(figures(other), rel=1e-5), line["step"]
        assert digests(line) == digests(other) and len(digests(line)) == 2


@pytest.mark.parametrize("num_workers", COUNTS)
def test_losses_are_those_of_one_worker_in_parts_or_whole(results: dict[int, dict[str, Any]], num_workers: int) -> None:
    one = results[1]["lines"]
    assert [line["step"] for line in one] == [2, 4, 6, 8]
    check_close(results[num_workers]["lines"], one)
    check_close(results[num_workers]["lines_in_parts"], one)


@pytest.mark.parametrize("num_workers", COUNTS)
def test_a_resumed_run_repeats_the_uninterrupted_one(results: dict[int, dict[str, Any]], num_workers: int) -> None:
    # The checkpoint lies in the middle of a line's steps: every worker's sums must have come with it.
    whole, resumed = results[num_workers]["lines"], results[num_workers]["lines_resumed"]
    assert resumed == [line for line in whole if line["step"] > SAVED_AT]


@pytest.mark.parametrize("saved_by", COUNTS)
@pytest.mark.parametrize("num_workers", COUNTS)
def test_any_number_of_workers_goes_on_where_any_other_stopped(
    results: dict[int, dict[str, Any]], num_workers: int, saved_by: int
) -> None:
    expected = [line for line in results[1]["lines"] if line["step"] > SAVED_AT]
    check_close(results[num_workers]["resumed_from"][saved_by], expected)
