"""A disk that is full while a checkpoint is written: a clear error, the last good one intact, nothing half-written."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.checkpoint import Checkpoint, CheckpointStore
from mlim_ray.training.checkpoint_writer import CheckpointWriter
from tests.training.checkpoints import assert_nothing_else

PAGE, NUM_FLOATS = 4096, 3000


def weights_at(step: int) -> dict[str, Tensor]:
    return {"weight": torch.full((NUM_FLOATS,), float(step))}


def state_at(step: int) -> dict[str, Any]:
    return {"step": step, "moments": torch.full((2 * NUM_FLOATS,), float(step))}


def assert_is_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None and checkpoint.step == checkpoint.trainer_state["step"] == step
    assert torch.equal(checkpoint.weights["weight"], weights_at(step)["weight"])
    assert torch.equal(checkpoint.trainer_state["moments"], state_at(step)["moments"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here, which takes root: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def leave_free(disk: Path, num_bytes: int) -> Path:
    """Fill the disk but for so much."""
    filler = disk / "filler"
    filler.write_bytes(b"")
    free = os.statvfs(disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - num_bytes))
    return filler


def save(store: CheckpointStore, step: int) -> None:
    with CheckpointWriter(store) as writer:
        writer.submit(step, weights_at(step), state_at(step))


def test_a_full_disk_costs_nothing_but_the_checkpoint_that_did_not_fit(small_disk: Path) -> None:
    store = CheckpointStore(str(small_disk / "checkpoints"))
    save(store, 1)
    met = set()
    step = 1
    for num_pages in range(30):
        filler = leave_free(small_disk, num_pages * PAGE)
        try:
            save(store, step + 1)
        except storage.StorageError as error:
            path, _, rest = str(error).removeprefix("cannot write ").partition(": ")
            assert path.startswith(store.folder) and rest.startswith("No space left on device; make room there")
            met.add(Path(path).name)
        else:
            step += 1
            met.add("fits")
        checkpoint, refused = store.latest()
        assert_is_step(checkpoint, step)
        assert refused == []
        assert_nothing_else(store)
        filler.unlink()
    assert met == {"model.safetensors", "trainer.pt", "manifest.json", "fits"}
    save(store, step + 1)
    assert_is_step(store.latest().checkpoint, step + 1)
    assert_nothing_else(store)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A limit of this process, as `ulimit -f` sets it: writing more fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_limit_on_the_size_of_files_is_named_with_its_mend(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    save(store, 1)
    sizes = {name: file.num_bytes for name, file in store.entries()[0].files.items()}
    met = set()
    for limit, name in ((0, "model.safetensors"), (4096, "model.safetensors"), (sizes["trainer.pt"] - 1, "trainer.pt")):
        with files_of_at_most(limit), pytest.raises(storage.StorageError) as caught:
            save(store, 2)
        assert str(caught.value).startswith(f"cannot write {tmp_path}/step-00000002/{name}: File too large; raise the")
        met.add(name)
        assert_is_step(store.latest().checkpoint, 1)
        assert_nothing_else(store)
    assert met == set(sizes)
    save(store, 2)
    assert_is_step(store.latest().checkpoint, 2)
    assert_nothing_else(store)
