import os
import pickle
from pathlib import Path

import pytest

from tests.data.pictures import encoded, noise
from tests.data.sources.reading import cleaned, opened, reasons, records_of

PICTURE = encoded(noise(16, 16))


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PICTURE if not name.endswith(".txt") else f"caption of {name}".encode())
    return root


def test_the_text_is_the_label_and_splits_are_drawn(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "red_cat/1.png", "dog/1.PNG", "dog/2.jpg", "men/shoes/x.png"))
    assert source.columns.by_role() == {"image": "path", "text": "{label}", "label": "label"}
    records = records_of(source)
    assert [(r.source, r.row, r.key, r.text, r.label, r.split) for r in records] == [
        ("dog/1.PNG", 0, "dog/1.PNG", "dog", "dog", None),
        ("dog/2.jpg", 1, "dog/2.jpg", "dog", "dog", None),
        ("men/shoes/x.png", 2, "men/shoes/x.png", "men shoes", "men/shoes", None),
        ("red_cat/1.png", 3, "red_cat/1.png", "red cat", "red_cat", None),
    ]
    assert all(record.image == PICTURE for record in records)


def test_folders_named_like_splits_are_splits(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "Validation/cat/2.png", "test/dog/3.png")
    found = cleaned(opened(tmp_path))
    assert [(r.key, r.text, r.label, r.split) for r in found.accepted] == [
        ("Validation/cat/2.png", "cat", "cat", "val"),
        ("test/dog/3.png", "dog", "dog", "test"),
        ("train/cat/1.png", "cat", "cat", "train"),
    ]
    # Beside two splits another folder is no label.
    write(tmp_path, "extra/cat/4.png")
    assert reasons(opened(tmp_path)) == {("extra/cat/4.png", 1): "unknown_split"}


def test_one_label_may_be_called_test(tmp_path: Path) -> None:
    records = records_of(opened(write(tmp_path, "test/1.png", "exam/1.png")))
    assert [(record.label, record.split) for record in records] == [("exam", None), ("test", None)]


def test_a_caption_beside_the_picture_wins(tmp_path: Path) -> None:
    write(tmp_path, "cat/a.png", "cat/a.txt", "cat/b_c.png", "cat/empty.png", "cat/notes.txt", "a.txt")
    (tmp_path / "cat" / "empty.txt").write_text(" ")
    texts = {
        None: ["caption of cat/a.txt", "cat", "cat"],
        "a {label} called {stem}": ["caption of cat/a.txt", "a cat called b c", "a cat called empty"],
        "{label}: {caption}": ["cat: caption of cat/a.txt", "cat", "cat"],
    }
    for template, expected in texts.items():
        found = cleaned(opened(tmp_path, text=template))
        assert [record.text for record in found.accepted] == expected
    assert opened(tmp_path).columns.by_role()["text"] == "{caption}, else {label}"
    by_stem = records_of(opened(tmp_path, text_column="stem", key_column="stem"))
    assert [(record.key, record.text) for record in by_stem] == [("a", "a"), ("b_c", "b c"), ("empty", "empty")]


def test_pictures_without_folders_need_a_text(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    with pytest.raises(ValueError, match=r"no folder per label and no captions.*--text \{stem\}"):
        opened(tmp_path)
    assert [record.text for record in records_of(opened(tmp_path, text="{stem}"))] == ["a", "b"]
    write(tmp_path, "a.txt")
    assert [record.text for record in cleaned(opened(tmp_path)).accepted] == ["caption of a.txt"]
    assert reasons(opened(tmp_path)) == {("b.png", 1): "empty_text"}


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (tmp_path / "secret.txt").write_text("secret")
    root = write(tmp_path / "root", "cat/a.png", "cat/z.png")
    os.symlink(tmp_path / "secret.png", root / "cat" / "linked.png")
    os.symlink(root / "cat" / "absent.png", root / "cat" / "gone.png")
    os.symlink(root / "cat" / "a.png", root / "cat" / "inner.png")
    os.symlink(tmp_path / "secret.txt", root / "cat" / "z.txt")
    os.mkfifo(root / "cat" / "pipe.png")
    assert reasons(opened(root)) == {
        ("cat/gone.png", 1): "missing_picture",
        ("cat/linked.png", 3): "path_outside_folder",
        ("cat/z.png", 4): "path_outside_folder",
    }
    os.symlink(tmp_path, root / "dog")
    with pytest.raises(ValueError, match="holds a link to a folder, dog, which is not followed"):
        opened(root)


def test_pictures_that_cannot_be_decoded_are_rejected_and_hidden_files_are_none(tmp_path: Path) -> None:
    write(tmp_path, "cat/a.png", "cat/.b.png", "_trash/c.png", ".git/d.png", "cat/thumbs.db")
    (tmp_path / "cat" / "e.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "cat" / "f.jpg").write_bytes(b"")
    found = reasons(opened(tmp_path))
    assert found == {("cat/e.heic", 1): "unreadable_picture", ("cat/f.jpg", 2): "missing_picture"}


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    write(tmp_path, "cat/a.png")
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(PICTURE)
    found = cleaned(opened(tmp_path))
    assert len(found.accepted) == 1
    assert [(record.row, record.reason.value) for record in found.rejected] == [(1, "invalid_utf8")]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"text": "{title}"}, r"\{title\}: no such column in .*path \(string\), label"),
        ({"label_column": "class"}, "--label-column class: no such column"),
        ({"image_column": "stem"}, "pictures of .* are its files"),
        ({"image_folder": "elsewhere"}, "--image-folder given"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path: Path, knobs: dict[str, str], message: str) -> None:
    write(tmp_path, "cat/a.png")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, **knobs)


def test_many_files_are_listed_in_little_memory(tmp_path: Path) -> None:
    num_files = 2_000
    (tmp_path / "cat").mkdir()
    for i in range(num_files):
        (tmp_path / "cat" / f"{i:07d}.png").touch()
    source = opened(tmp_path)
    parts = source.slices()
    assert sum(part.stop - part.start for part in parts) == num_files and len(source.identity) == 1
    # What travels with every task.
    assert len(pickle.dumps(source)) / num_files < len("cat/0000000.png") + 10
