"""Checkpoints in S3, against a real server: the same contract as on disk, whatever becomes of server and writer.

Each test asserts that its fault was really met.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.data.s3.client import client
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.checkpoint_writer import CheckpointWriter
from tests.faulty_gateway import Fault, FaultyGateway
from tests.object_store import ObjectStore
from tests.training.checkpoints import (
    assert_is_step,
    assert_nothing_else,
    die_while_saving,
    save,
    state_at,
    weights_at,
)

pytestmark = pytest.mark.cluster

LARGE = 12 << 20
"""numbers of a weight that is written in parts"""
COMMITTED = "after write_bytes_atomically manifest.json"


def large_weights_at(step: int) -> dict[str, Tensor]:
    return {"large": torch.arange(LARGE, dtype=torch.float32) * step}


def unfinished(bucket: str) -> list[str]:
    found = client().list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads", [])
    return [upload["Key"] for upload in found]


def begin_upload(path: str) -> None:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    client().create_multipart_upload(Bucket=bucket, Key=key)


def test_policy_janitor_and_damage_are_as_on_disk(bucket: str) -> None:
    store = CheckpointStore(f"{bucket}/run/checkpoints", CheckpointPolicy(2, "loss/total", (4,)))
    assert store.latest() == (None, []) and store.clean() == 0
    with CheckpointWriter(store) as writer:
        for step in range(1, 8):
            writer.submit(step, weights_at(step), state_at(step), float(abs(step - 2)))
    assert {entry.step: entry.kept for entry in store.entries()} == {
        2: ("best",),
        4: ("every",),
        6: ("last",),
        7: ("last",),
    }
    checkpoint, refused = store.latest()
    assert_is_step(checkpoint, 7)
    assert refused == store.check() == []
    assert_nothing_else(store)

    mine = {"notes.txt", "step-00000003.bak/model.safetensors", "step-1/trainer.pt", "step-00000005/mine"}
    for name in (*mine, "step-00000005/model.safetensors", "step-00000009/trainer.pt"):
        storage.write_bytes_atomically(storage.join(store.folder, name), b"x")
    for path in (f"{store.folder}/step-00000008/model.safetensors", f"{bucket}/run/model/model.safetensors"):
        begin_upload(path)
    assert store.clean() == 3
    assert_nothing_else(store, frozenset(mine))
    assert unfinished(bucket) == ["run/model/model.safetensors"]

    content = storage.read_bytes(f"{store.folder}/step-00000007/trainer.pt")
    for damaged in (content[:-1], content + b"x", b"", bytes([content[0] ^ 1]) + content[1:], None):
        if damaged is None:
            storage.remove(f"{store.folder}/step-00000007/trainer.pt")
        else:
            storage.write_bytes_atomically(f"{store.folder}/step-00000007/trainer.pt", damaged)
        storage.write_bytes_atomically(f"{store.folder}/manifest.json", b"{}")
        checkpoint, refused = store.latest()
        assert_is_step(checkpoint, 6)
        assert [found.step for found in refused] == [None, 7] and "step-00000007/trainer.pt" in refused[1].reason


def started(store: CheckpointStore, step: int, at: int, told: Path) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.checkpoints"])
    process = context.Process(target=die_while_saving, args=(store, step, at, str(told)))
    process.start()
    return process


def test_a_kill_at_any_point_of_a_save_leaves_the_last_committed_checkpoint(bucket: str, tmp_path: Path) -> None:
    store = CheckpointStore(f"{bucket}/checkpoints")
    for step in (1, 2):
        save(store, step)
    process = started(store, 3, -1, tmp_path / "points.json")
    process.join(60)
    assert process.exitcode == 0
    points: list[str] = json.loads((tmp_path / "points.json").read_text())
    # Two files and two manifests written, two files removed, unfinished uploads looked for.
    assert len(points) == 2 * (4 + 2 + 1)
    newest = 3
    for at, point in enumerate(points):
        process = started(store, newest + 1, at, tmp_path / "none.json")
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, point
        newest += at >= points.index(COMMITTED)
        checkpoint, refused = store.latest()
        assert_is_step(checkpoint, newest)
        assert refused == []
        if at % 2:
            store.clean()
            assert_nothing_else(store)
        newest += 1
        save(store, newest)
        assert_is_step(store.latest().checkpoint, newest)
        assert_nothing_else(store)
    assert not (tmp_path / "none.json").exists()


def save_large(folder: str, step: int) -> None:
    with CheckpointWriter(CheckpointStore(folder)) as writer:
        writer.submit(step, large_weights_at(step), state_at(step))


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_behind(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"{bucket}/checkpoints"
    store = CheckpointStore(folder)
    save(store, 1)
    is_under_way = threading.Event()

    def choose(method: str, path: str) -> Fault | None:
        if "partNumber=2" in path:
            is_under_way.set()
            return "503"
        return None

    with FaultyGateway(object_store.port, choose) as gateway:
        # The child takes the address from its environment.
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        process = multiprocessing.get_context("spawn").Process(target=save_large, args=(folder, 2))
        process.start()
        assert is_under_way.wait(120)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert unfinished(bucket) == ["checkpoints/step-00000002/model.safetensors"]
    assert_is_step(store.latest().checkpoint, 1)
    save(store, 2)
    assert unfinished(bucket) == []
    assert_is_step(store.latest().checkpoint, 2)
    assert_nothing_else(store)


@contextmanager
def dead(store: ObjectStore) -> Iterator[None]:
    """Its disks are gone until the block ends."""
    store.kill("object")
    try:
        yield
    finally:
        store.revive("object")


@contextmanager
def still(store: ObjectStore) -> Iterator[None]:
    """It accepts connections and answers nothing until the block ends."""
    with store.suspended("object"):
        yield


class Told(CheckpointStore):
    """Remembers when a save was over."""

    def __init__(self, folder: str, events: list[str]) -> None:
        super().__init__(folder)
        self._events = events

    def save(self, *arguments: Any) -> None:
        super().save(*arguments)
        self._events.append("written")


@pytest.mark.parametrize(("fault", "seconds"), [(dead, 20), (still, 6)])
def test_training_goes_on_while_an_upload_waits_for_its_server(
    bucket: str,
    object_store: ObjectStore,
    own_client: None,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[ObjectStore], AbstractContextManager[None]],
    seconds: float,
) -> None:
    save(CheckpointStore(f"{bucket}/checkpoints"), 1)
    events: list[str] = []
    is_back, ending = threading.Event(), ExitStack()

    def come_back() -> None:
        events.append("back")
        is_back.set()
        ending.close()

    returning = threading.Timer(seconds, come_back)

    def choose(method: str, path: str) -> Fault | None:
        if "partNumber=2" in path and "away" not in events:
            ending.enter_context(fault(object_store))
            events.append("away")
            returning.start()
        return None

    with FaultyGateway(object_store.port, choose) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        monkeypatch.setattr("mlim_ray.data.s3.client._clients", {})
        store = Told(f"{bucket}/checkpoints", events)
        weights, state = large_weights_at(2), state_at(2)
        with CheckpointWriter(store) as writer:
            writer.submit(2, weights, state)
            held_s = writer.wait_s
            while not is_back.is_set():
                weights["large"][: 1 << 16].add_(1.0)
                state["optimiser"]["state"][0]["exp_avg"].add_(1.0)
                if "away" in events:
                    events.append("step")
            assert writer.wait_s == held_s
        returning.join()
    num_steps = events.count("step")
    assert [event for event in events if event != "step"] == ["away", "back", "written"]
    assert events[1] == "step" and num_steps > 20
    checkpoint, refused = store.latest()
    assert checkpoint is not None and checkpoint.step == 2 and refused == []
    assert torch.equal(checkpoint.weights["large"], large_weights_at(2)["large"])
    assert torch.equal(
        checkpoint.trainer_state["optimiser"]["state"][0]["exp_avg"], state_at(2)["optimiser"]["state"][0]["exp_avg"]
    )
    assert unfinished(bucket) == []
    assert_nothing_else(store)
