"""A checkpoint loads as it was written or not at all (contracts C7 and C8)."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.checkpoint import Checkpoint, CheckpointStore

FILES = ("model.safetensors", "trainer.pt")


def weights_at(step: int) -> dict[str, Tensor]:
    return {"layer.weight": torch.full((3, 2), float(step)), "scalar": torch.tensor(step)}


def state_at(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "optimiser": {"state": {0: {"exp_avg": torch.arange(4.0) * step}}, "param_groups": [{"lr": 0.1}]},
    }


def save(store: CheckpointStore, step: int) -> None:
    store.save(step, weights_at(step), state_at(step))


def assert_is_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None and checkpoint.step == step
    assert checkpoint.weights.keys() == weights_at(step).keys()
    assert all(torch.equal(checkpoint.weights[name], value) for name, value in weights_at(step).items())
    assert checkpoint.trainer_state["step"] == step
    moment = checkpoint.trainer_state["optimiser"]["state"][0]["exp_avg"]
    assert torch.equal(moment, torch.arange(4.0) * step)


def step_folders(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in Path(store.folder).iterdir() if path.is_dir())


def test_the_newest_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "checkpoints"))
    assert store.latest() is None and store.steps() == []
    for step in (10, 20):
        save(store, step)
        assert_is_step(store.latest(), step)
    assert store.steps() == [10, 20]


@pytest.mark.parametrize("num_kept", [1, 2, 3, 4, 7])
def test_as_many_are_kept_as_asked_for(tmp_path: Path, num_kept: int) -> None:
    store = CheckpointStore(str(tmp_path), num_kept)
    for step in range(1, 9):
        save(store, step)
        kept = list(range(max(1, step - num_kept + 1), step + 1))
        assert store.steps() == kept
        assert step_folders(store) == [f"step-{kept_step:08d}" for kept_step in kept]


def test_weights_that_are_views_or_shared_are_written_whole(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    table = torch.arange(6.0).reshape(2, 3)
    store.save(1, {"turned": table.T, "column": table[:, 1]}, {"step": 1})
    checkpoint = store.latest()
    assert checkpoint is not None
    assert torch.equal(checkpoint.weights["turned"], table.T)
    assert torch.equal(checkpoint.weights["column"], table[:, 1])


def damage(path: Path, kind: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    elif kind == "extend":
        content += b"\0"
    path.unlink()
    if kind != "delete":
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["flip", "cut", "extend", "delete"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, kind: str
) -> None:
    rng = random.Random(f"{name} {kind}")
    store = CheckpointStore(str(tmp_path))
    for step in (1, 2):
        save(store, step)
    path = tmp_path / "step-00000002" / name
    intact = path.read_bytes()
    for _ in range(1 if kind in ("delete", "extend") else 25):
        caplog.clear()
        damage(path, kind, rng)
        assert_is_step(store.latest(), 1)
        [warning] = caplog.records
        assert warning.levelno == logging.WARNING
        assert "step 2" in warning.getMessage() and name in warning.getMessage()
        path.write_bytes(intact)
    assert_is_step(store.latest(), 2)
    for step in (1, 2):
        damage(tmp_path / f"step-{step:08d}" / name, kind, rng)
    assert store.latest() is None


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_a_damaged_manifest_never_loads_wrong_content(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    store = CheckpointStore(str(tmp_path))
    for step in (1, 2):
        save(store, step)
    path = tmp_path / "manifest.json"
    intact = path.read_bytes()
    for _ in range(150):
        damage(path, kind, rng)
        try:
            checkpoint = store.latest()
        except ValueError as error:
            assert str(path) in str(error)
        else:
            if checkpoint is not None:
                assert_is_step(checkpoint, checkpoint.step)
        path.write_bytes(intact)


def test_a_checkpoint_after_a_refused_one_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    for step in (1, 4):
        save(store, step)
    (tmp_path / "step-00000004" / "trainer.pt").unlink()
    assert_is_step(store.latest(), 1)
    save(store, 3)
    assert_is_step(store.latest(), 3)
    assert store.steps() == [1, 3]
    assert step_folders(store) == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize("num_kept", [1, 2])
@pytest.mark.parametrize("num_writes", range(4))
def test_a_crash_between_any_two_writes_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_writes: int, num_kept: int
) -> None:
    store = CheckpointStore(str(tmp_path), num_kept)
    save(store, 1)
    replace, done = os.replace, 0

    def replace_until_the_disk_is_full(source: str, target: str) -> None:
        nonlocal done
        if done == num_writes:
            raise OSError(28, "No space left on device")
        done += 1
        replace(source, target)

    is_whole = num_writes == 3
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_until_the_disk_is_full)
        with contextlib.nullcontext() if is_whole else pytest.raises(storage.StorageError, match="No space left"):
            save(store, 2)
    assert_is_step(CheckpointStore(str(tmp_path)).latest(), 2 if is_whole else 1)
    save(store, 2)
    assert_is_step(store.latest(), 2)
    assert step_folders(store) == ["step-00000001", "step-00000002"][-num_kept:]


def test_a_crash_before_the_old_one_is_removed_leaves_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(str(tmp_path), num_kept=1)
    save(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(storage.shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(storage.StorageError):
            save(store, 2)
    assert_is_step(store.latest(), 2)
    save(store, 3)
    assert step_folders(store) == ["step-00000003"]


def test_a_hostile_pickle_is_refused_though_its_manifest_is_right(tmp_path: Path) -> None:
    created = tmp_path / "created"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(created), "w")

    store = CheckpointStore(str(tmp_path / "checkpoints"))
    save(store, 1)
    buffer = io.BytesIO()
    torch.save({"step": 1, "optimiser": Hostile()}, buffer)
    for payload in (buffer.getvalue(), pickle.dumps(Hostile(), protocol=2)):
        storage.write_bytes_atomically(f"{store.folder}/step-00000001/trainer.pt", payload)
        manifest = json.loads(Path(store.folder, "manifest.json").read_bytes())
        manifest["checkpoints"][0]["files"]["trainer.pt"]["sha256"] = storage.sha256_of(payload)
        storage.write_bytes_atomically(f"{store.folder}/manifest.json", json.dumps(manifest).encode())
        assert store.latest() is None
        assert not created.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert created.exists()
