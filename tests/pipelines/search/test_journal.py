"""The journal of a search after crashes: whole to its last line, and the longer of two copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.data import storage
from mlim_ray.pipelines.search.journal import mend_journal, open_journal, take_longer
from mlim_ray.pipelines.search.journal_copy import JournalCopy
from mlim_ray.training.run_folder import RunFolder
from tests.pipelines.search.test_study import config, run_all, search_study, table

NUM_TRIALS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[tuple[object, ...]]]:
    """The journal of a search that nothing happened to, and its table."""
    folder = tmp_path_factory.mktemp("whole")
    study = search_study(folder, config(num_trials=NUM_TRIALS))
    run_all(study)
    return (folder / "study.log").read_bytes(), table(study)


@settings(max_examples=30)
@given(share=st.floats(0.01, 1.0))
def test_a_driver_that_died_in_any_byte_leaves_a_study_that_ends_the_same(
    whole: tuple[bytes, list[tuple[object, ...]]], tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    content, expected = whole
    folder = tmp_path_factory.mktemp("cut")
    (folder / "study.log").write_bytes(content[: int(share * len(content))])
    # It held the lock as well.
    (folder / "study.log.lock").symlink_to(folder / "study.log")
    with open_journal(RunFolder(str(folder)), "search") as (path, _):
        assert Path(path).read_bytes().endswith(b"\n") or not Path(path).read_bytes()
        study = search_study(folder, config(num_trials=NUM_TRIALS))
        run_all(study)
    assert table(study) == expected


def test_of_a_line_that_was_glued_to_a_torn_one_the_whole_record_is_kept(
    whole: tuple[bytes, list[tuple[object, ...]]], tmp_path: Path
) -> None:
    content, expected = whole
    lines = content.splitlines(keepends=True)
    torn = lines[7][: len(lines[7]) // 2]
    (tmp_path / "study.log").write_bytes(b"".join([*lines[:7], torn, *lines[7:]]))
    mend_journal(str(tmp_path / "study.log"))
    assert (tmp_path / "study.log").read_bytes() == content
    assert table(search_study(tmp_path, config(num_trials=NUM_TRIALS))) == expected


def test_another_damage_is_told(whole: tuple[bytes, list[tuple[object, ...]]], tmp_path: Path) -> None:
    lines = whole[0].splitlines(keepends=True)
    lines[4] = b"\x00" * (len(lines[4]) - 1) + b"\n"
    (tmp_path / "study.log").write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match="study.log: line 5 is damaged; restore the file"):
        mend_journal(str(tmp_path / "study.log"))


@pytest.mark.parametrize(
    ("here", "copied", "taken"),
    [
        (b"1\n2\n3\n", b"1\n2\n", b"1\n2\n3\n"),
        (b"1\n2\n", b"1\n2\n3\n", b"1\n2\n3\n"),
        (b"1\n2\n3\n4\n", b"1\n2\n77\n", b"1\n2\n77\n"),
        (None, b"1\n", b"1\n"),
        (b"1\n", None, b"1\n"),
    ],
    ids=["ahead", "behind", "apart", "nothing here", "nothing copied"],
)
def test_the_longer_of_two_states_is_taken(
    tmp_path: Path, here: bytes | None, copied: bytes | None, taken: bytes
) -> None:
    for name, content in (("here", here), ("copied", copied)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    take_longer(str(tmp_path / "here"), str(tmp_path / "copied"))
    assert (tmp_path / "here").read_bytes() == taken


def test_the_copy_ends_with_the_newest_whole_line(tmp_path: Path) -> None:
    journal, copied = tmp_path / "study.log", tmp_path / "bucket" / "study.log"
    journal.write_bytes(b"")
    with JournalCopy(str(journal), str(copied)) as copy, journal.open("ab") as file:
        for number in range(100):
            file.write(b"%d\n" % number)
            file.flush()
            copy.due()
        file.write(b"torn")
        file.flush()
    assert copied.read_bytes() == b"".join(b"%d\n" % number for number in range(100))


def test_a_copy_that_cannot_be_made_is_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "study.log").write_bytes(b"1\n")
    (tmp_path / "bucket").write_text("a file is no folder")
    with (
        pytest.raises(storage.StorageError, match=f"is in {tmp_path / 'study.log'}: resume on this machine"),
        JournalCopy(str(tmp_path / "study.log"), str(tmp_path / "bucket" / "study.log")) as copy,
    ):
        copy.due()
    # What ended the search comes first.
    with (
        pytest.raises(KeyboardInterrupt),
        JournalCopy(str(tmp_path / "study.log"), str(tmp_path / "bucket" / "study.log")),
    ):
        raise KeyboardInterrupt
