"""A checkpoint loads as it was written or not at all (contracts C7 and C8)."""

from __future__ import annotations

import io
import json
import logging
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlim_ray.data import storage
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_manifest import write_manifest
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from tests.training.checkpoints import (
    FILES,
    MANIFESTS,
    assert_is_step,
    assert_nothing_else,
    save,
    state_at,
    weights_at,
)

NEWEST = tuple(f"step-00000002/{name}" for name in FILES)


def two_steps(folder: Path) -> CheckpointStore:
    store = CheckpointStore(str(folder))
    for step in (1, 2):
        save(store, step)
    return store


def test_the_newest_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "checkpoints"))
    assert store.latest() == (None, []) and store.steps() == []
    for step in (10, 20):
        save(store, step)
        checkpoint, refused = store.latest()
        assert_is_step(checkpoint, step)
        assert refused == store.check() == []
    assert store.steps() == [10, 20]


@pytest.mark.parametrize("num_kept", [1, 2, 3, 4, 7])
def test_as_many_are_kept_as_asked_for(tmp_path: Path, num_kept: int) -> None:
    store = CheckpointStore(str(tmp_path), CheckpointPolicy(num_kept))
    for step in range(1, 9):
        save(store, step)
        assert store.steps() == list(range(max(1, step - num_kept + 1), step + 1))
        assert_nothing_else(store)


def test_weights_that_are_views_or_shared_are_written_whole(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    table = torch.arange(6.0).reshape(2, 3)
    store.save(1, {"turned": table.T, "column": table[:, 1]}, {"step": 1})
    checkpoint = store.latest().checkpoint
    assert checkpoint is not None
    assert torch.equal(checkpoint.weights["turned"], table.T)
    assert torch.equal(checkpoint.weights["column"], table[:, 1])


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def extend(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 9)))


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def swap(path: Path, rng: random.Random) -> None:
    """With a file of the other checkpoint, of the same one, or with a manifest."""
    folder = path.parents[1] if path.parent.name.startswith("step-") else path.parent
    others = [other for other in folder.rglob("*") if other.is_file() and other.read_bytes() != path.read_bytes()]
    other = rng.choice(sorted(others))
    # A copy lies where the file was: the other one stays as it is.
    path.write_bytes(other.read_bytes())


DAMAGES = (flip, flip, flip, cut, cut, extend, empty, delete, swap)


def test_no_damage_is_ever_loaded_and_each_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """200 damages of the newest checkpoint's files and of the manifest: 0 silent loads."""
    rng = random.Random(0)
    store = two_steps(tmp_path)
    intact = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    met: dict[tuple[str, str], int] = {}
    for _ in range(200):
        caplog.clear()
        name, damage = rng.choice([*NEWEST, "manifest.json"]), rng.choice(DAMAGES)
        damage(tmp_path / name, rng)
        checked = store.check()
        checkpoint, refused = store.latest()
        [only] = refused
        # The manifest has a copy; a checkpoint has the one before it.
        assert_is_step(checkpoint, 2 if name == "manifest.json" else 1)
        assert only.step == (None if name == "manifest.json" else 2) and name in only.reason
        assert checked == refused
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert str(only) in caplog.text and "refused" in str(only)
        met[name, damage.__name__] = met.get((name, damage.__name__), 0) + 1
        for path, content in intact.items():
            path.write_bytes(content)
    assert len(met) == 3 * len(set(DAMAGES)) and sum(met.values()) == 200
    assert_is_step(store.latest().checkpoint, 2)


def test_damage_in_many_places_is_never_loaded(tmp_path: Path) -> None:
    rng = random.Random(1)
    store = two_steps(tmp_path)
    intact = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    ends = set()
    for _ in range(200):
        harmed = rng.sample(sorted(intact), rng.randint(2, len(intact)))
        for path in harmed:
            rng.choice(DAMAGES)(path, rng)
        try:
            checkpoint, refused = store.latest()
        except ValueError as error:
            assert all(f"{tmp_path / name}" in str(error) for name in MANIFESTS) and "--overwrite" in str(error)
            ends.add("no manifest")
        else:
            found = None if checkpoint is None else checkpoint.step
            ends.add(str(found))
            if checkpoint is not None:
                assert_is_step(checkpoint, checkpoint.step)
                assert not {tmp_path / f"step-{found:08d}" / name for name in FILES} & set(harmed)
            assert {entry.step for entry in refused} - {None} == {step for step in (1, 2) if step > (found or 0)}
        for path, content in intact.items():
            path.write_bytes(content)
    assert ends == {"no manifest", "None", "1", "2"}


def test_checkpoints_that_lost_both_manifests_are_neither_forgotten_nor_removed(tmp_path: Path) -> None:
    store = two_steps(tmp_path)
    for name in MANIFESTS:
        (tmp_path / name).unlink()
    for use in (CheckpointStore.latest, CheckpointStore.clean, lambda store: save(store, 3)):
        with pytest.raises(ValueError, match="manifest.json is missing; .*manifest.copy.json is missing"):
            use(store)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        f"step-0000000{step}/{name}" for step in (1, 2) for name in FILES
    ]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_or_copy_is_mended_when_a_run_starts_and_when_it_saves(tmp_path: Path, name: str) -> None:
    rng = random.Random(0)
    for number, mend in enumerate((CheckpointStore.clean, lambda store: save(store, 3))):
        for damage in set(DAMAGES):
            store = two_steps(tmp_path / f"{number}-{damage.__name__}")
            damage(Path(store.folder, name), rng)
            mend(store)
            assert_nothing_else(store)
            contents = [Path(store.folder, manifest).read_bytes() for manifest in MANIFESTS]
            assert contents[0] == contents[1] and store.latest().refused == []


def test_a_checkpoint_after_a_refused_one_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    for step in (1, 4):
        save(store, step)
    (tmp_path / "step-00000004" / "trainer.pt").unlink()
    assert_is_step(store.latest().checkpoint, 1)
    save(store, 3)
    assert_is_step(store.latest().checkpoint, 3)
    assert store.steps() == [1, 3]
    assert_nothing_else(store)


def test_a_run_that_went_back_forgets_what_came_later(tmp_path: Path) -> None:
    for step in (1, 4, 3):
        # Another process each time: it knows nothing of what was refused.
        save(CheckpointStore(str(tmp_path)), step)
    store = CheckpointStore(str(tmp_path))
    assert store.steps() == [1, 3]
    assert_nothing_else(store)


def test_a_refused_checkpoint_takes_the_place_of_no_good_one(tmp_path: Path) -> None:
    store = two_steps(tmp_path)
    flip(tmp_path / NEWEST[0], random.Random(0))
    assert_is_step(store.latest().checkpoint, 1)
    save(store, 3)
    assert store.steps() == [1, 3]
    save(store, 4)
    assert store.steps() == [3, 4]
    assert_nothing_else(store)


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path) -> None:
    store = two_steps(tmp_path)
    store.save(2, weights_at(5), state_at(5))
    checkpoint = store.latest().checkpoint
    assert checkpoint is not None and checkpoint.step == 2 and checkpoint.trainer_state["step"] == 5
    assert store.steps() == [1, 2]


def test_what_cannot_be_read_now_is_not_taken_for_damage(tmp_path: Path) -> None:
    """A run must not go back because a disk or a server is away for a while."""
    store = two_steps(tmp_path)
    path = tmp_path / NEWEST[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(storage.StorageError, match=f"cannot read {path}: Is a directory"):
        store.latest()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here whose reading fails")
def test_a_disk_that_cannot_read_a_file_any_more_is_damage(tmp_path: Path) -> None:
    store = two_steps(tmp_path)
    (tmp_path / NEWEST[0]).unlink()
    (tmp_path / NEWEST[0]).symlink_to("/proc/self/mem")
    checkpoint, [refused] = store.latest()
    assert_is_step(checkpoint, 1)
    assert refused.step == 2 and "Input/output error" in refused.reason


FIRST_VERSION = '{"checkpoints": [%s]}'


def test_a_manifest_of_the_first_version_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    """It knew neither scores nor a checksum of its own, and had no copy."""
    store = two_steps(tmp_path)
    old = [
        {"step": entry.step, "files": {name: file.model_dump() for name, file in entry.files.items()}}
        for entry in store.entries()
    ]

    def write_old(change: Callable[[str], str] = str) -> None:
        (tmp_path / "manifest.copy.json").unlink(missing_ok=True)
        (tmp_path / "manifest.json").write_text(change(json.dumps({"checkpoints": old}, indent=1)))

    for number, (mend, steps) in enumerate([(CheckpointStore.clean, [1, 2]), (lambda s: save(s, 3), [2, 3])]):
        write_old()
        checkpoint, refused = store.latest()
        assert_is_step(checkpoint, 2)
        assert refused == [] and [entry.score for entry in store.entries()] == [None, None], number
        mend(store)
        assert store.steps() == steps
        assert_nothing_else(store)
    # Without a copy, a damaged one is told and nothing is guessed.
    write_old(lambda text: text[:-5])
    with pytest.raises(ValueError, match=f"{tmp_path}/manifest.json is damaged .*manifest.copy.json is missing"):
        store.latest()
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        save(store, 4)
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        store.clean()
    assert all((tmp_path / f"step-0000000{step}" / name).exists() for step in (2, 3) for name in FILES)


def test_a_manifest_of_a_newer_version_is_told_as_such(tmp_path: Path) -> None:
    store = two_steps(tmp_path)
    for name in MANIFESTS:
        (tmp_path / name).write_text('{"version": 3, "lists": []}')
    with pytest.raises(ValueError, match="is of version 3, this mlim-ray reads up to 2"):
        store.latest()


def test_a_hostile_pickle_is_refused_though_its_manifest_is_right(tmp_path: Path) -> None:
    created = tmp_path / "created"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(created), "w")

    buffer = io.BytesIO()
    torch.save({"step": 1, "optimiser": Hostile()}, buffer)
    payloads = (buffer.getvalue(), pickle.dumps(Hostile(), protocol=2), pickle.dumps(Hostile(), protocol=0), b"{}", b"")
    num_refused = 0
    for number, payload in enumerate(payloads):
        for name in FILES:
            store = two_steps(tmp_path / f"{number}-{name}")
            Path(store.folder, "step-00000002", name).write_bytes(payload)
            first, second = store.entries()
            forged = second.files[name].model_copy(
                update={"num_bytes": len(payload), "sha256": storage.sha256_of(payload)}
            )
            write_manifest(store.folder, (first, second.model_copy(update={"files": {**second.files, name: forged}})))
            assert store.check() == []
            checkpoint, [refused] = store.latest()
            assert_is_step(checkpoint, 1)
            assert refused.step == 2 and name in refused.reason and "not opened" in refused.reason
            assert not created.exists()
            num_refused += 1
    assert num_refused == len(payloads) * len(FILES)
    torch.load(io.BytesIO(payloads[0]), weights_only=False)
    assert created.exists()
