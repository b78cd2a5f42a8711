import io
import json
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.sources import limit_slices
from mlim_ray.data.sources.source import SLICE_RECORDS
from tests.data.pictures import encoded, noise
from tests.data.source_forms import add_member
from tests.data.sources.reading import cleaned, opened, reasons, records_of

PICTURE = encoded(noise(16, 16))


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w", **options: object) -> Path:
    with tarfile.open(path, mode, **options) as archive:  # type: ignore[call-overload]
        for name, content in members:
            add_member(archive, name, content)
    return path


def samples(num_samples: int, first: int = 0) -> list[tuple[str, bytes]]:
    return [
        member
        for i in range(first, first + num_samples)
        for member in ((f"{i:06d}.png", PICTURE), (f"{i:06d}.txt", f"item {i}".encode()))
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_slices_begin_at_the_right_samples(tmp_path: Path, mode: str) -> None:
    write_tar(tmp_path / "b.tar", samples(1_500), mode)
    write_tar(tmp_path / "a.tar", samples(3), mode)
    source = opened(tmp_path)
    parts = source.slices()
    assert all(part.stop - part.start <= SLICE_RECORDS for part in parts) and len(parts) == 3
    records = records_of(source)
    assert [record.text for record in records] == [f"item {i}".encode() for i in [*range(3), *range(1_500)]]
    assert [record.row for record in records] == [*range(3), *range(1_500)]
    finer = [record for part in limit_slices(parts, 400) for batch in source.read(part) for record in batch]
    assert finer == records


def test_names_are_unique_in_their_shard_only(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, samples(1))
    assert [record.key for record in records_of(opened(tmp_path))] == ["a.tar:000000", "b.tar:000000"]
    plain = records_of(opened(tmp_path, key_column="__key__"))
    assert [record.key for record in plain] == ["000000", "000000"]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path: Path, tar_format: int) -> None:
    long = "f" * 70 + "/" + "g" * 70 + "/" + "n" * 90
    members = [
        *((f"{long}.png", PICTURE), (f"{long}.txt", b"long")),
        *(("./a/caf\u00e9.b.png", PICTURE), ("./a/caf\u00e9.txt", b"short")),
        *(("UPPER.PNG", PICTURE), ("UPPER.TXT", b"upper")),
        *((".hidden.png", b"x"), ("README", b"no sample"), ("a/._caf\u00e9.png", b"x")),
    ]
    write_tar(tmp_path / "a.tar", members, format=tar_format)
    records = records_of(opened(tmp_path, image_column="png"))
    assert [record.key for record in records] == [f"a.tar:{long}", "a.tar:a/caf\u00e9", "a.tar:UPPER"]
    assert [record.text for record in records] == [b"long", b"short", b"upper"]
    assert [record.image == PICTURE for record in records] == [True, False, True]


def test_roles_come_from_members_and_from_json(tmp_path: Path) -> None:
    fields = {"caption": "a red shirt", "category": "shirt", "split": "val", "url": "https://example.org/a.jpg", "n": 3}
    write_tar(tmp_path / "a.tar", [("1.jpg", PICTURE), ("1.json", json.dumps(fields).encode()), ("1.cls", b"7\n")])
    source = opened(tmp_path)
    (record,) = records_of(source)
    assert (record.text, record.label, record.split) == ("a red shirt", b"7", "val")
    assert source.columns.by_role() == {"image": "image", "text": "caption", "label": "cls", "split": "split"}
    (other,) = records_of(opened(tmp_path, label_column="category", text="{caption}, {n} {cls}", key_column="n"))
    assert (other.key, other.text, other.label) == (3, "a red shirt, 3 7", "shirt")


def test_hostile_members_are_rejected_and_nothing_leaves_the_archive(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(tmp_path / "executed"), "w")  # type: ignore[return-value]

    pickled = pickle.dumps(Bomb())
    target = tmp_path / "data" / "a.tar"
    target.parent.mkdir()
    with tarfile.open(target, "w") as archive:
        for extension in ("pyd", "pickle", "pkl", "pth", "npy"):
            add_member(archive, f"good.{extension}", pickled)
        for name in ("good", "../out", "/abs", "in/../../out", "sub/../odd"):
            add_member(archive, f"{name}.png", PICTURE)
            add_member(archive, f"{name}.txt", b"words")
        for name, kind in (("sym", b"2"), ("hard", b"1"), ("char", b"3"), ("block", b"4"), ("pipe", b"6")):
            link = tarfile.TarInfo(f"{name}.png")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
            add_member(archive, f"{name}.txt", b"words")
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        add_member(archive, "bad.json", b"{")
        add_member(archive, "bad.png", PICTURE)
        add_member(archive, "last.png", PICTURE)
        add_member(archive, "last.txt", b"words")
    before = sorted(tmp_path.rglob("*"))
    source = opened(tmp_path / "data")
    found = cleaned(source)
    assert [record.key for record in found.accepted] == ["a.tar:good", "a.tar:last"]
    assert [record.reason.value for record in found.rejected] == ["path_outside_folder"] * 9 + ["empty_text"]
    details = [record.detail for record in found.rejected]
    assert details[0] == "../out.png is a path out of the archive" and details[4] == "sym.png is a symbolic link"
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match="no such column"):
        opened(target, text_column="pkl")


def test_broken_samples_are_rejected_one_by_one(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    members = [
        *(("0.png", PICTURE), ("0.json", b'{"title": "good", "id": 0}')),
        *(("1.png", PICTURE), ("1.json", b"{")),
        *(("2.png", PICTURE), ("2.json", b"null")),
        *(("3.png", PICTURE), ("3.json", b'{"title": ["a"]}')),
        *(("4.png", PICTURE), ("4.json", deep)),
        *(("5.png", PICTURE), ("5.json", b'{"title": "caf\xe9"}')),
        ("6.json", b'{"title": "no picture"}'),
        ("7.png", PICTURE),
        *(("8.png", PICTURE), ("8.png", PICTURE), ("8.json", b"{}")),
        *((f"9.{i}", b"") for i in range(300)),
    ]
    write_tar(tmp_path / "a.tar", members)
    assert reasons(opened(tmp_path)) == {
        ("a.tar", 1): "malformed_row",
        ("a.tar", 2): "malformed_row",
        ("a.tar", 3): "malformed_row",
        ("a.tar", 4): "malformed_row",
        ("a.tar", 5): "invalid_utf8",
        ("a.tar", 6): "missing_picture",
        ("a.tar", 7): "empty_text",
        ("a.tar", 8): "malformed_row",
        ("a.tar", 9): "malformed_row",
    }


def test_a_huge_member_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add_member(archive, "0.png", PICTURE)
        add_member(archive, "0.txt", b"good")
        add_member(archive, "1.txt", b"huge")
        member = tarfile.TarInfo("1.png")
        member.size = MAX_ENCODED_BYTES + 1
        header = member.tobuf()
        end = archive.fileobj.tell() + len(header) + -(-member.size // 512) * 512  # type: ignore[union-attr]
        archive.fileobj.write(header)  # type: ignore[union-attr]
        archive.fileobj.seek(end)  # type: ignore[union-attr]
        archive.offset = end
        add_member(archive, "2.png", PICTURE)
        add_member(archive, "2.txt", b"good")
    tracemalloc.start()
    try:
        assert reasons(opened(path)) == {("a.tar", 1): "too_many_bytes"}
        assert tracemalloc.get_traced_memory()[1] < MAX_ENCODED_BYTES // 2
    finally:
        tracemalloc.stop()


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", samples(20)).read_bytes()
    path = tmp_path / "a.tar"
    end = whole.rstrip(b"\0")
    for content, message in {
        whole[: len(whole) // 2]: "a.tar is truncated",
        whole[:1_000]: "a.tar is truncated",
        end + bytes(-len(end) % 512): "a.tar is truncated",
        whole[:1_536] + b"x" * 512 + whole[2_048:]: "a.tar is damaged at byte",
        whole + b"x" * 512: "a.tar is damaged at byte",
        b"no tar at all": "a.tar is truncated at byte 0",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            opened(path)
    zipped = write_tar(tmp_path / "whole.tgz", samples(20), "w:gz").read_bytes()
    for content in (zipped[:-20], zipped[:200], zipped[:100] + b"xxxx" + zipped[104:]):
        (tmp_path / "b.tgz").write_bytes(content)
        with pytest.raises(ValueError, match=r"b.tgz is (damaged|truncated)"):
            opened(tmp_path / "b.tgz")


def test_archives_behind_each_other_are_read_as_one(tmp_path: Path) -> None:
    one, two = (write_tar(tmp_path / f"{i}.tar", samples(2, 2 * i)).read_bytes() for i in range(2))
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "a").write_bytes(one + two)
    assert [record.key for record in records_of(opened(tmp_path / "both"))] == [f"a:{i:06d}" for i in range(4)]


def test_hostile_headers_end_soon(tmp_path: Path) -> None:
    def header(name: str, kind: bytes, size: int) -> bytes:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, size
        return member.tobuf(tarfile.GNU_FORMAT)

    path = tmp_path / "a.tar"
    for content, message in {
        header("x", tarfile.GNUTYPE_LONGNAME, 1 << 40): "truncated",
        header("x", tarfile.XHDTYPE, 2 << 20) + bytes(4 << 20): "a name of 2097152 bytes",
        header("x", tarfile.XHDTYPE, 1 << 20) + b"1 " * (1 << 19) + bytes(1024): "broken extended header",
        header("x", tarfile.XHDTYPE, 512) + b"99999999 a=b\n".ljust(512, b"x") + bytes(1024): "broken extended header",
        header("x", tarfile.GNUTYPE_SPARSE, 0) + bytes(1024): "sparse",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            opened(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no samples"),
        ([("README", b"x")], "holds no samples"),
        ([("1.txt", b"x"), ("2.txt", b"x")], "no sample at the beginning of .* has a picture"),
        ([("1.jpg", PICTURE), ("2.jpg", PICTURE)], "no column of .* looks like text"),
        ([("1.jpg", PICTURE), ("2.jpg", PICTURE), ("1.txt", b"x"), ("2.txt", b"x")], "write it sorted by name"),
        ([("1.jpg", PICTURE), ("1.png", PICTURE), ("1.txt", b"x")], r"several pictures \(jpg, png\)"),
    ],
)
def test_unusable_shards_are_told(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(write_tar(tmp_path / "a.tar", members))


def test_one_of_several_pictures_can_be_named(tmp_path: Path) -> None:
    other = io.BytesIO(encoded(noise(20, 20))).getvalue()
    members = [("1.left.png", PICTURE), ("1.right.png", other), ("1.prompt.txt", b"words")]
    source = opened(write_tar(tmp_path / "a.tar", members), image_column="right.png", text_column="prompt.txt")
    (record,) = records_of(source)
    assert (record.image, record.text) == (other, b"words")
