"""Small checkpoints whose content tells their step, what must be in their folder, and deaths during a save."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.checkpoint import Checkpoint, CheckpointStore
from mlim_ray.training.checkpoint_writer import CheckpointWriter

FILES = ("model.safetensors", "trainer.pt")
MANIFESTS = ("manifest.json", "manifest.copy.json")


def weights_at(step: int) -> dict[str, Tensor]:
    return {"layer.weight": torch.full((3, 2), float(step)), "scalar": torch.tensor(step)}


def state_at(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "optimiser": {"state": {0: {"exp_avg": torch.arange(4.0) * step}}, "param_groups": [{"lr": 0.1}]},
    }


def save(store: CheckpointStore, step: int, score: float | None = None) -> None:
    store.save(step, weights_at(step), state_at(step), score)


def assert_is_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None and checkpoint.step == step
    assert checkpoint.weights.keys() == weights_at(step).keys()
    assert all(torch.equal(checkpoint.weights[name], value) for name, value in weights_at(step).items())
    assert checkpoint.trainer_state["step"] == step
    moment = checkpoint.trainer_state["optimiser"]["state"][0]["exp_avg"]
    assert torch.equal(moment, torch.arange(4.0) * step)


def assert_finds(store: CheckpointStore, step: int | None) -> None:
    """The newest checkpoint is that of `step`, none without it, and nothing is refused."""
    checkpoint, refused = store.latest()
    assert refused == []
    if step is None:
        assert checkpoint is None
    else:
        assert_is_step(checkpoint, step)


def assert_all_are_whole(store: CheckpointStore) -> set[str]:
    """Every file that the manifest names is as it was written; gives the files, relative to the store's folder."""
    files = {f"step-{entry.step:08d}/{name}": file for entry in store.entries() for name, file in entry.files.items()}
    for relative, file in files.items():
        content = storage.read_bytes(storage.join(store.folder, relative))
        assert (len(content), storage.sha256_of(content)) == (file.num_bytes, file.sha256), relative
    return set(files)


def assert_nothing_else(store: CheckpointStore, others: frozenset[str] = frozenset()) -> None:
    """In the folder are the two manifests, the files that they name, as they were written, and `others`."""
    expected = {*MANIFESTS, *assert_all_are_whole(store), *others}
    assert {file.relative for file in storage.list_files(store.folder)} == expected
    if not storage.is_remote(store.folder):
        folders = {path.name for path in Path(store.folder).glob("step-*") if path.is_dir() and not path.is_symlink()}
        assert folders == {name.partition("/")[0] for name in expected if name.startswith("step-")}


class Death:
    """Counts the points of a save at which a process may die, and lets it die at one of them.

    Points lie before, in the middle of and after each write of a file, and before and after each removal and each
    call of the operating system that changes something.
    """

    def __init__(self, at: int, die: Callable[[], None]) -> None:
        self.points: list[str] = []
        self.is_dead = False
        self._at = at
        self._die = die

    def point(self, name: str) -> None:
        self.points.append(name)
        self.is_dead |= len(self.points) == self._at + 1
        if self.is_dead:
            self._die()

    @contextmanager
    def threatens(self) -> Iterator[None]:
        """The storage layer passes these points while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("write_bytes_atomically", "remove", "remove_empty_folder", "abort_unfinished_uploads"):
                patch.setattr(storage, name, self.around(name, getattr(storage, name)))
            patch.setattr(storage, "os", _System(self))
            yield

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with a point before it and one after it."""

        def call(*arguments: Any, **options: Any) -> Any:
            # The last one is what comes to be, of a file that is renamed.
            paths = [os.path.basename(path) for path in arguments if isinstance(path, str)]
            what = " ".join([name, *paths[-1:]])
            self.point(f"before {what}")
            result = function(*arguments, **options)
            self.point(f"after {what}")
            return result

        return call


class _System:
    """The module `os`, as the storage layer sees it."""

    def __init__(self, death: Death) -> None:
        self._death = death

    def writev(self, descriptor: int, parts: list[memoryview]) -> int:
        """With a point in the middle of the first part."""
        half = len(parts[0]) // 2
        written = os.write(descriptor, parts[0][:half])
        self._death.point("half a file")
        return written + os.writev(descriptor, [parts[0][half:], *parts[1:]])

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        changes = name in {"makedirs", "fsync", "replace", "remove", "rmdir"}
        return self._death.around(f"os.{name}", function) if changes else function


def die_while_saving(store: CheckpointStore, step: int, at: int, told: str) -> None:
    """To be run in a process of its own: save in the background, and kill -9 itself at the point `at`.

    The points are written to the file `told` if none of them was met.
    """
    death = Death(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with death.threatens(), CheckpointWriter(store) as writer:
        writer.submit(step, weights_at(step), state_at(step))
    Path(told).write_text(json.dumps(death.points))
