"""The janitor removes what crashes left: never a committed checkpoint, never a file that is not ours."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from tests.training.checkpoints import Death, assert_all_are_whole, assert_finds, assert_nothing_else, save

NOT_OURS = (
    "notes.txt",
    "manifest.json.bak",
    ".manifest.json.tmp",
    "step-1/model.safetensors",
    "step-000000002/trainer.pt",
    "step-00000003.bak/model.safetensors",
    "step-00000002/notes.txt",
    "step-00000003/model.safetensors.old",
    "step-00000004/model/model.safetensors",
    "step-00000005/.trainer.pt.0123456789abcdef0123456789abcdef.tmp2",
    "old/step-00000001/trainer.pt",
    "x.0123456789abcdef0123456789abcdef.tmp",
)
"""near misses of the names that are ours"""


class _Crash(BaseException):
    pass


def crash() -> None:
    raise _Crash


OPERATIONS = st.one_of(
    st.tuples(st.just("save"), st.integers(1, 3)),
    st.tuples(st.just("crash"), st.integers(0, 70)),
    st.tuples(st.just("crash in the janitor"), st.integers(0, 20)),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.just("user"), st.sampled_from(range(len(NOT_OURS)))),
)
POLICIES = st.builds(
    CheckpointPolicy, st.integers(1, 3), st.sampled_from([None, "loss/total"]), st.sampled_from([(), (2,), (3,)])
)


@settings(max_examples=50)
@given(st.lists(OPERATIONS, min_size=2, max_size=10), POLICIES)
def test_after_any_saves_and_crashes_all_that_is_committed_is_there_and_nothing_else_of_ours(
    operations: list[tuple[str, int]], policy: CheckpointPolicy
) -> None:
    with TemporaryDirectory() as folder:
        store = CheckpointStore(folder, policy)
        committed: list[int] = []
        others: dict[str, str] = {}

        def next_step(ahead: int = 1) -> int:
            return max(committed, default=0) + ahead

        def kept_with(step: int) -> list[int]:
            known = [*store.entries(), store.entries()[0].model_copy(update={"step": step, "score": score_of(step)})]
            return [entry.step for entry in policy.choose(known)]

        for kind, number in operations:
            if kind == "save":
                step = next_step(number)
                expected = kept_with(step) if committed else [step]
                save(store, step, score_of(step))
                assert store.steps() == expected
            elif kind == "user":
                path = Path(folder, NOT_OURS[number])
                path.parent.mkdir(parents=True, exist_ok=True)
                others[NOT_OURS[number]] = f"mine {number}"
                path.write_text(others[NOT_OURS[number]])
            elif kind == "start":
                store = CheckpointStore(folder, policy)
                store.clean()
                assert store.steps() == committed
            else:
                step = next_step()
                death = Death(number, crash)
                with death.threatens():
                    try:
                        if kind == "crash":
                            save(store, step, score_of(step))
                        else:
                            store.clean()
                    except _Crash:
                        assert death.is_dead
                # The next process knows nothing of this one.
                store = CheckpointStore(folder, policy)
                assert store.steps() == committed or (kind == "crash" and step in store.steps())
            committed = store.steps()
            assert_finds(store, max(committed, default=None))
            assert_all_are_whole(store)
            for name, content in others.items():
                assert Path(folder, name).read_text() == content
            if kind in ("save", "start"):
                assert_nothing_else(store, frozenset(others))


def score_of(step: int) -> float:
    return float(step * 7 % 5)


def test_what_ten_crashes_left_is_removed_and_counted(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    save(store, 1)
    for at in range(2, 22, 2):
        death = Death(at, crash)
        with death.threatens(), pytest.raises(_Crash):
            save(store, at)
        assert death.is_dead
    leftovers = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(leftovers) > 10 + 4
    assert store.clean() == len(leftovers) - 4
    assert_finds(store, 1)
    assert_nothing_else(store)
    assert store.clean() == 0


def test_a_run_that_begins_has_nothing_to_remove(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "checkpoints"))
    assert store.clean() == 0 and store.latest() == (None, [])
    assert_nothing_else(store)


def test_links_are_left_and_what_lies_behind_them_too(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "checkpoints"
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").write_text("archived")
    store = CheckpointStore(str(folder))
    save(store, 5)
    (folder / "step-00000001").symlink_to(elsewhere)
    (folder / "step-00000002").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (folder / "step-00000003").symlink_to(tmp_path / "empty")
    assert store.clean() == 0
    save(store, 6)
    assert (elsewhere / "model.safetensors").read_text() == "archived"
    assert {path.name for path in folder.iterdir() if path.is_symlink()} == {f"step-0000000{n}" for n in (1, 2, 3)}
