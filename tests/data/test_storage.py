import hashlib
import os
from pathlib import Path

import pytest

from mlim_ray.data import storage


def test_written_files_are_read_back_and_leave_nothing_beside(tmp_path: Path) -> None:
    path = storage.join(str(tmp_path), "a", "b.bin")
    storage.write_bytes_atomically(path, b"old")
    storage.write_bytes_atomically(path, b"new content")
    assert storage.read_bytes(path) == b"new content" and storage.read_bytes(path, 3) == b"new"
    assert storage.sha256(path) == hashlib.sha256(b"new content").hexdigest()
    assert storage.list_names(str(tmp_path / "a")) == ["b.bin"]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    storage.write_bytes_atomically(path, b"old")
    with pytest.raises(TypeError):
        storage.write_bytes_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert storage.read_bytes(path) == b"old" and os.listdir(tmp_path) == ["file"]


def test_listing_is_sorted_recursive_and_notices_changes(tmp_path: Path) -> None:
    for name in ("b/x", "a", "b/a"):
        storage.write_bytes_atomically(str(tmp_path / name), name.encode())
    before = storage.list_files(str(tmp_path))
    assert [file.relative for file in before] == ["a", "b/a", "b/x"]
    assert [file.num_bytes for file in before] == [1, 3, 3]
    storage.write_bytes_atomically(str(tmp_path / "a"), b"z")
    os.utime(tmp_path / "a", ns=(1, 1))
    assert storage.list_files(str(tmp_path))[0] != before[0]
    assert storage.list_files(str(tmp_path / "a"))[0].relative == "a"


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    storage.remove(str(tmp_path / "nothing"))
    storage.remove_tree(str(tmp_path / "nothing"))
    assert storage.list_names(str(tmp_path / "nothing")) == []
    assert not storage.exists(str(tmp_path / "nothing"))


def test_only_an_empty_folder_is_removed_as_one(tmp_path: Path) -> None:
    for name in ("empty", "full", "full/inner"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("link", "full", "file", "nothing", "empty"):
        storage.remove_empty_folder(str(tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "link"] and os.listdir(tmp_path / "full") == ["inner"]


@pytest.mark.parametrize("action", [storage.read_bytes, storage.open_read, storage.list_files, storage.sha256])
def test_a_missing_path_is_named(action: object, tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    with pytest.raises(storage.MissingPathError, match=path):
        action(path)  # type: ignore[operator]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="file/below"):
        storage.write_bytes_atomically(str(tmp_path / "file" / "below"), b"")


@pytest.mark.parametrize("path", ["http://host/a", "gs://bucket/a", "s3:///a", "s3://key:secret@bucket/a"])
def test_other_addresses_are_refused_without_showing_secrets(path: str) -> None:
    with pytest.raises(ValueError) as caught:
        storage.exists(path)
    assert "secret" not in str(caught.value)


def test_walking_finds_what_listing_finds_in_the_same_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/x.txt", "a-b/x.txt", "a.txt", "a/c/y.txt", "B.txt", "a/c-d", "a/c.e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listed = storage.list_files(str(tmp_path))
    assert len(listed) == 8 and list(storage.walk_files(str(tmp_path))) == listed
    assert list(storage.walk_files(str(tmp_path / "b.txt"))) == storage.list_files(str(tmp_path / "b.txt"))
    with pytest.raises(storage.MissingPathError):
        next(storage.walk_files(str(tmp_path / "absent")))


def test_walking_tells_of_links_to_folders_and_of_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "in" / "real" / "x.txt").write_text("x")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "in" / "real")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "absent")
    (tmp_path / "in" / "file").symlink_to(tmp_path / "in" / "real" / "x.txt")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = [(file.relative, file.num_bytes, file.stamp) for file in storage.walk_files(str(tmp_path / "in"))]
    assert [(name, size) for name, size, _ in found] == [
        *(("broken", 0), ("file", 1), ("linked", 0), ("loop", 0), ("real/x.txt", 1)),
    ]
    assert [name for name, _, stamp in found if stamp == storage.LINKED_FOLDER] == ["linked", "loop"]


@pytest.mark.parametrize("num_parts", [0, 1, 511, 512, 513, 3_000])
def test_parts_are_written_one_after_the_other_however_many(tmp_path: Path, num_parts: int) -> None:
    parts = [str(number).encode() * (number % 7) for number in range(num_parts)]
    storage.write_unsynced(str(tmp_path / "new" / "file"), [memoryview(part) for part in parts])
    assert (tmp_path / "new" / "file").read_bytes() == b"".join(parts)


def test_a_write_that_the_system_cuts_short_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.writev
    monkeypatch.setattr(os, "writev", lambda file, parts: write(file, [part[:3] for part in parts[:1]]))
    storage.write_unsynced(str(tmp_path / "file"), [b"abcdefgh", b"", b"ij", b"klmnop", b"q"])
    assert (tmp_path / "file").read_bytes() == b"abcdefghijklmnopq"
