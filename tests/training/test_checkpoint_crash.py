"""A process that is killed anywhere in a save leaves the last committed checkpoint, and the next one clears up."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from tests.training.checkpoints import assert_finds, assert_is_step, assert_nothing_else, die_while_saving, save

pytestmark = pytest.mark.slow

COMMITTED = "after os.replace manifest.json"


def started(store: CheckpointStore, at: int, told: Path) -> BaseProcess:
    # A fork server imports torch once for all of them, and has no threads that a fork would break.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.checkpoints"])
    process = context.Process(target=die_while_saving, args=(store, 3, at, str(told)))
    process.start()
    return process


def copied(store: CheckpointStore, to: Path) -> CheckpointStore:
    return CheckpointStore(str(shutil.copytree(store.folder, to)), store.policy)


def points_of_a_save(store: CheckpointStore, told: Path) -> list[str]:
    process = started(store, -1, told)
    process.join(60)
    assert process.exitcode == 0
    points: list[str] = json.loads(told.read_text())
    return points


@pytest.mark.parametrize(
    ("num_kept", "steps"), [(2, (1, 2)), (1, (1, 2)), (2, ())], ids=["two are kept", "one is kept", "the first one"]
)
def test_a_kill_at_any_point_of_a_save_leaves_the_last_committed_checkpoint(
    tmp_path: Path, num_kept: int, steps: tuple[int, ...]
) -> None:
    policy = CheckpointPolicy(num_kept)
    before = CheckpointStore(str(tmp_path / "before"), policy)
    for step in steps:
        save(before, step)
    Path(before.folder).mkdir(exist_ok=True)
    undisturbed = copied(before, tmp_path / "undisturbed")
    points = points_of_a_save(undisturbed, tmp_path / "points.json")
    assert_is_step(undisturbed.latest().checkpoint, 3)
    assert_nothing_else(undisturbed)
    # Two files of the checkpoint and two manifests are written, two files and a folder removed. A run's first save
    # begins with empty manifests.
    committed = len(points) - points[::-1].index(COMMITTED) - 1
    assert points.count("half a file") == 2 * points.count(COMMITTED) + 2 == (4 if steps else 6)
    assert sum(point.startswith(("before os.remove", "before os.rmdir")) for point in points) == (3 if steps else 0)
    num_kills = 0
    for at, point in enumerate(points):
        store = copied(before, tmp_path / str(at))
        process = started(store, at, tmp_path / "none.json")
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, point
        num_kills += 1

        newest = 3 if at >= committed else max(steps, default=None)
        assert_finds(store, newest)

        # Whatever then happens to the manifest: its copy names checkpoints that are all there.
        torn = copied(store, tmp_path / f"{at}-torn")
        if steps:
            Path(torn.folder, "manifest.json").write_bytes(b"")
            checkpoint, refused = torn.latest()
            assert checkpoint is not None and checkpoint.step in {2, newest}
            assert_is_step(checkpoint, checkpoint.step)
            assert [found.step for found in refused] == [None]

        restarted = copied(store, tmp_path / f"{at}-restarted")
        restarted.clean()
        assert_finds(restarted, newest)
        assert_nothing_else(restarted)

        save(store, 4)
        assert_finds(store, 4)
        assert_nothing_else(store)
        assert store.steps() == sorted({*steps, *([3] if newest == 3 else []), 4})[-num_kept:], point
    assert num_kills == len(points) > 30
    assert not (tmp_path / "none.json").exists()
