"""A run that is told to stop, diverges, or finds its disk full: one plain line, nothing lost, nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray
import torch

from mlim_ray.pipelines.resources import WorkerPlan, wait_for_resources
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.non_finite import MAX_SKIPPED_IN_A_ROW
from tests.pipelines.faulty_runs import FLAGS, NUM_STEPS, FaultyRun
from tests.pipelines.test_pretrain import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

SHM = Path("/dev/shm")
DIVERGING = [*FLAGS, "--train.learning-rate", "1e30", "--train.warmup-ratio", "0"]


@contextmanager
def running(folder: Path, name: str, flags: list[str], workers: str = "2") -> Iterator[FaultyRun]:
    """A run that is ended with the block, come what may."""
    run = FaultyRun(folder, name, flags, workers)
    try:
        yield run
    finally:
        run.end()


def checkpoints(run: FaultyRun) -> CheckpointStore:
    return CheckpointStore(str(run.run / "checkpoints"))


def abandoned(files: set[Path]) -> set[Path]:
    """Those that no living process holds: other tests may be at work beside this one."""
    held = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            held |= {Path(mapped.path) for mapped in process.memory_maps()}
            held |= {Path(opened.path) for opened in process.open_files()}
    return {file for file in files - held if file.exists()}


def test_a_run_that_is_told_to_stop_goes_on_as_if_nothing_had_happened(
    fault_folder: Path, undisturbed: FaultyRun
) -> None:
    shm_before = set(SHM.glob("*"))
    with running(fault_folder, "stopped", FLAGS) as run:
        for number, exit_code, num_steps in ((signal.SIGTERM, 75, 13), (signal.SIGINT, 130, 7)):
            run.wait_for_step(run.step() + num_steps)
            run.below()
            run.process.send_signal(number)
            line = run.refused(exit_code)
            (newest,) = checkpoints(run).steps()[-1:]
            assert newest == run.step(), "what was learned up to the stop is kept"
            assert line == (
                f"stopped by {number.name}; its newest checkpoint is of step {newest}; continue with: "
                "python experiments/pretrain.py --out runs/stopped --resume --workers 2"
            )
            run.resume()
        # Workers that do not answer cannot be waited for; a second Ctrl-C does not try.
        run.wait_for_step(run.step() + 3)
        run.below()
        workers = [run.worker(0), run.worker(1)]
        for worker in workers:
            worker.suspend()
        run.process.send_signal(signal.SIGINT)
        assert run.process.stdout is not None
        while not run.process.stdout.readline().startswith("SIGINT: saving a checkpoint"):
            pass
        run.process.send_signal(signal.SIGINT)
        assert run.refused(130) == "interrupted"
        assert run.num_redone() == 0
        run.resume()
        # Told while the finished model is measured: all is learned, and the rest can be made.
        run.wait_for(lambda: checkpoints(run).steps()[-1:] == [NUM_STEPS])
        run.below()
        run.process.send_signal(signal.SIGTERM)
        assert "continue with: " in run.refused(75)
        assert run.lines() == undisturbed.lines()
    assert not abandoned(set(SHM.glob("*")) - shm_before)


def test_sigterm_while_records_are_prepared_ends_cleanly(tmp_path: Path) -> None:
    flags = ["--data", "generated:20000", "--no-dashboard"]
    with running(tmp_path, "early", flags, "1") as run:
        run.wait_for(lambda: any(tmp_path.glob("runs/prepared/*/.staging/*")))
        run.below()
        run.process.send_signal(signal.SIGTERM)
        assert run.refused(75) == "stopped by SIGTERM; training had not begun: give the same command again"
        assert not (run.run / "lease.json").exists()


def test_a_diverging_run_stops_at_once_and_its_batch_can_be_replayed(fault_folder: Path) -> None:
    with running(fault_folder, "diverged", DIVERGING) as run:
        line = run.refused(2)
        assert "step 1 " in line and f"mlim-ray replay {run.run}/non_finite/step-00000001" in line
        # Another try would have met the same.
        assert run.restarts() == [] and checkpoints(run).steps() == []
    done = subprocess.run(
        [sys.executable, "-m", "mlim_ray.command_line.main", "replay", str(run.run / "non_finite/step-00000001")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "step 1: gradient norm" in done.stdout and "64 records" in done.stdout


@pytest.mark.torture
def test_skipping_gives_up_when_no_step_is_well(fault_folder: Path) -> None:
    with running(fault_folder, "skipping", [*DIVERGING, "--train.on-non-finite", "skip"]) as run:
        line = run.refused(2)
        assert f"{MAX_SKIPPED_IN_A_ROW + 1} steps in a row" in line and run.restarts() == []
        checkpoint = checkpoints(run).latest().checkpoint
        assert checkpoint is None or all(torch.isfinite(weight).all() for weight in checkpoint.weights.values())


@pytest.fixture
def small_disk(fault_folder: Path) -> Iterator[Path]:
    """A run folder on a file system of its own, with room for two checkpoints."""
    place = fault_folder / "runs" / "full"
    place.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=22m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_stops_the_run_which_goes_on_once_there_is_room(
    fault_folder: Path, undisturbed: FaultyRun, small_disk: Path
) -> None:
    with running(fault_folder, "full", FLAGS) as run:
        line = run.refused(75)
        assert "No space left on device" in line and "runs/full" in line
        newest = checkpoints(run).latest().checkpoint
        assert newest is not None and f"its newest checkpoint is of step {newest.step}; " in line
        subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
        run.resume()
        run.finish()
        assert run.lines() == undisturbed.lines()


@pytest.mark.usefixtures("local_ray")
def test_workers_that_a_busy_cluster_has_no_room_for_are_refused_with_the_arithmetic() -> None:
    class Busy:
        pass

    busy = ray.remote(num_cpus=2)(Busy).remote()
    ray.get(busy.__ray_ready__.remote())
    try:
        with pytest.raises(ValueError, match=r"2 workers need 1 CPU, and 0 of the cluster's 2 are free after 1 s; "):
            wait_for_resources(WorkerPlan(2, 0.5, 0.0, 1), wait_s=1)
    finally:
        ray.kill(busy)
    wait_for_resources(WorkerPlan(2, 0.5, 0.0, 1))
