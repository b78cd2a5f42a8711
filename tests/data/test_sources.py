import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, RawRecord, clean
from mlim_ray.data.inspection import inspect
from mlim_ray.data.rejection import Problem
from mlim_ray.data.sources import Source, join_slices, limit_slices, open_source, resolve_prepare_config
from mlim_ray.data.sources.source import SLICE_RECORDS
from tests.data.pictures import encoded, noise

CONFIG = resolve_prepare_config(PrepareConfig(), 16)
PICTURE = encoded(noise(16, 16))


def configured(**knobs: Any) -> PrepareConfig:
    return resolve_prepare_config(PrepareConfig(**knobs), 16)


def records_of(source: Source) -> list[RawRecord]:
    return [record for part in source.slices() for batch in source.read(part) for record in batch]


def table(num_rows: int, first: int = 0, image: bytes = PICTURE) -> pa.Table:
    rows = range(first, first + num_rows)
    return pa.table({"id": [f"k{i}" for i in rows], "image": [image] * num_rows, "text": [f"item {i}" for i in rows]})


def write_csv(path: Path, rows: list[list[str]], delimiter: str = ",") -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


@pytest.mark.parametrize("row_group_size", [7, 300, 5_000, 20_000])
def test_slices_of_parquet_cover_every_row_once_and_in_order(tmp_path: Path, row_group_size: int) -> None:
    (tmp_path / "deep").mkdir()
    pq.write_table(table(5_000), tmp_path / "b.parquet", row_group_size=row_group_size)
    pq.write_table(table(30, first=5_000), tmp_path / "deep" / "c.parquet")
    pq.write_table(table(0), tmp_path / "empty.parquet")
    source = open_source(str(tmp_path), CONFIG)
    parts = source.slices()
    assert all(0 < part.stop - part.start <= SLICE_RECORDS for part in parts)
    assert len(parts) < 12
    records = records_of(source)
    assert [record.key for record in records] == [f"k{i}".encode() for i in range(5_030)]
    finer = [record for part in limit_slices(parts, 192) for batch in source.read(part) for record in batch]
    assert finer == records
    assert (records[4_999].row, records[4_999].source) == (4_999, "b.parquet")
    assert (records[-1].row, records[-1].source) == (29, "deep/c.parquet")


def test_large_rows_are_read_in_small_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(2_000_000) for _ in range(40)]
    pq.write_table(pa.table({"image": images, "text": ["x"] * 40}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path / "a.parquet"), CONFIG)
    batches = [batch for part in source.slices() for batch in source.read(part)]
    assert sum(map(len, batches)) == 40
    assert max(map(len, batches)) <= 16


def test_a_single_file_without_a_known_suffix_is_recognised(tmp_path: Path) -> None:
    pq.write_table(table(3), tmp_path / "download")
    assert len(records_of(open_source(str(tmp_path / "download"), CONFIG))) == 3


def test_types_of_columns(tmp_path: Path) -> None:
    columns = {
        "id": pa.array([1, None]),
        "image": pa.array([{"bytes": PICTURE, "path": "x.png"}, None]),
        "text": pa.array(["a", None]).dictionary_encode(),
        "label": pa.array(["l", "m"], pa.large_string()),
        "group": pa.array([b"g", b"h"]).cast(pa.binary()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = records_of(open_source(str(tmp_path), configured(group_column="group")))
    assert (first.key, first.image, first.text, first.label, first.group) == (1, PICTURE, b"a", b"l", b"g")
    assert (second.key, second.image, second.text) == (None, None, None)


def test_invalid_utf8_in_a_string_column_reaches_the_cleaning(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"], pa.binary()).buffers())
    pq.write_table(pa.table({"image": [PICTURE], "text": broken}), tmp_path / "a.parquet")
    cleaned = clean(records_of(open_source(str(tmp_path), CONFIG)), CleaningRules.of(CONFIG, False))
    assert [record.reason.value for record in cleaned.rejected] == ["invalid_utf8"]


def test_without_a_key_column_file_and_row_identify_a_record(tmp_path: Path) -> None:
    pq.write_table(table(3).drop(["id"]), tmp_path / "a.parquet")
    assert [record.key for record in records_of(open_source(str(tmp_path), CONFIG))] == [
        "a.parquet:0",
        "a.parquet:1",
        "a.parquet:2",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_with_pictures_beside_it(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PICTURE)
    rows = [
        ["id", "image", "title", "split"],
        ["1", "pictures/a.png", "Two\nlines, and \u5c71", "train"],
        ["2", "no.png", "x", "val"],
    ]
    write_csv(tmp_path / "items.csv", rows, delimiter)
    first, second = records_of(open_source(str(tmp_path / "items.csv"), CONFIG))
    assert (first.key, first.image, first.split) == (b"1", PICTURE, b"train")
    assert first.text == "Two\nlines, and \u5c71".encode()
    assert isinstance(second.image, Problem) and second.image.reason == "missing_picture"


def test_csv_slices_begin_at_the_right_rows(tmp_path: Path) -> None:
    rows = [["image", "title"], *(["a.png", f"row {i}\n{'x' * (i % 50)}"] for i in range(2_500))]
    write_csv(tmp_path / "items.tsv", rows, "\t")
    source = open_source(str(tmp_path), CONFIG)
    assert [part.start for part in source.slices()] == [0, SLICE_RECORDS, 2 * SLICE_RECORDS]
    records = records_of(source)
    finer = [record for part in limit_slices(source.slices(), 192) for batch in source.read(part) for record in batch]
    joined = join_slices(source.slices(), 2_100)
    coarser = [record for part in joined for batch in source.read(part) for record in batch]
    assert len(joined) == 2 and coarser == finer == records
    assert [record.row for record in records] == list(range(2_500))
    assert all(record.text.startswith(f"row {record.row}\n".encode()) for record in records)  # type: ignore[union-attr]


def test_hostile_csv_rows_end_in_the_quarantine(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    lines = [
        b"\xef\xbb\xbfimage,title",
        b"a.png,caf\xe9",
        b"a.png",
        b"a.png,x,y",
        b"",
        b"a.png,\x00ok",
        b'a.png,"' + b"w " * 500_000 + b'"',
    ]
    (tmp_path / "items.csv").write_bytes(b"\n".join(lines))
    cleaned = clean(records_of(open_source(str(tmp_path), CONFIG)), CleaningRules.of(CONFIG, False))
    assert [(r.row, r.reason.value) for r in cleaned.rejected] == [
        (0, "invalid_utf8"),
        (1, "malformed_row"),
        (2, "malformed_row"),
    ]
    assert [(r.row, r.text[:4], r.was_cut) for r in cleaned.accepted] == [(3, "ok", False), (4, "w w ", True)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b'image,title\na.png,x\na.png,"never closed\na.png,y\na.png,z\n',
            r"opens in .*never closed.*, line 3, is never",
        ),
        ("image,title\na.png,x\n".encode("utf-16"), "is no UTF-8: the names of its columns"),
        ("image,title\na.png,x\n".encode("utf-16-le"), "is no UTF-8: the names of its columns"),
        ("image,t\u00eftle\na.png,x\n".encode("latin-1"), "is no UTF-8: the names of its columns"),
        (b"image,title\ra.png,x\ra.png,y\r", "lines end with a carriage return alone"),
    ],
)
def test_csv_files_that_would_be_misread_are_refused_by_name(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"items\.csv .*{expected}"):
        open_source(str(tmp_path / "items.csv"), CONFIG)


def test_a_quote_within_a_field_of_csv_is_a_letter(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(b'image,title\na.png,12" pipe\na.png,"two\nlines, 3"" wide"\na.png,5" pipe')
    records = records_of(open_source(str(tmp_path / "items.csv"), CONFIG))
    assert [record.text for record in records] == [b'12" pipe', b'two\nlines, 3" wide', b'5" pipe']


def test_a_table_of_ten_thousand_columns_is_opened_at_once(tmp_path: Path) -> None:
    header = ["image", "title", *(f"c{i}" for i in range(10_000))]
    write_csv(tmp_path / "items.csv", [header, ["a.png", "red", *[""] * 10_000]])
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (20, 20));"
        "from mlim_ray.config.prepare import PrepareConfig;"
        "from mlim_ray.data.sources import open_source, resolve_prepare_config;"
        "print(open_source(sys.argv[1], resolve_prepare_config(PrepareConfig(), 16)).columns.text)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "title\n", done.stderr


def test_paths_never_leave_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "in").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (root / "in" / "a.png").write_bytes(PICTURE)
    os.symlink(tmp_path / "secret.png", root / "link.png")
    os.symlink(root / "in" / "a.png", root / "inner.png")
    os.mkfifo(root / "pipe.png")
    expected = {
        "in/../in/a.png": None,
        "inner.png": None,
        "../secret.png": "path_outside_folder",
        "in/../../secret.png": "path_outside_folder",
        str(tmp_path / "secret.png"): "path_outside_folder",
        "link.png": "path_outside_folder",
        "http://127.0.0.1/a.png": "path_outside_folder",
        "file:///etc/passwd": "path_outside_folder",
        "s3://bucket/a.png": "path_outside_folder",
        "in": "missing_picture",
        "pipe.png": "missing_picture",
        "x" * 5_000: "missing_picture",
        "": "missing_picture",
        "a\x00.png": "missing_picture",
    }
    pq.write_table(pa.table({"image": list(expected), "text": ["x"] * len(expected)}), root / "a.parquet")
    found = {
        path: record.image.reason.value if isinstance(record.image, Problem) else None
        for path, record in zip(expected, records_of(open_source(str(root), CONFIG)), strict=True)
    }
    assert found == expected


def test_pictures_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PICTURE)
    write_csv(tmp_path / "tables" / "items.csv", [["image", "title"], ["a.png", "x"]])
    config = configured(image_folder=str(tmp_path / "pictures"))
    source = open_source(str(tmp_path / "tables"), config)
    assert records_of(source)[0].image == PICTURE
    before = source.identity
    (tmp_path / "pictures" / "a.png").write_bytes(encoded(noise(20, 20)))
    assert open_source(str(tmp_path / "tables"), config).identity != before


def test_generated_records_are_those_of_the_catalogue() -> None:
    source = open_source("generated:1500", CONFIG)
    records = records_of(source)
    assert len(records) == 1_500 and len({record.key for record in records}) == 1_500
    assert source.generated is not None and source.generated.num_records == 1_500
    assert clean(records[:20], CleaningRules.of(CONFIG, True)).rejected == []


@pytest.mark.parametrize("name", ["generated:", "generated:x", "generated:0", "generated:-5", "generated:1.5"])
def test_a_wrong_number_of_generated_records_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NUM_RECORDS"):
        open_source(name, CONFIG)


def test_unusable_sources_are_named(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=f"{missing} does not exist"):
        open_source(str(missing), CONFIG)
    with pytest.raises(ValueError, match=f"{empty} holds no files"):
        open_source(str(empty), CONFIG)
    (empty / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"only files of .txt"):
        open_source(str(empty), CONFIG)
    (empty / "a.csv").write_text("")
    with pytest.raises(ValueError, match=r"a.csv is empty"):
        open_source(str(empty), CONFIG)
    (empty / "a.csv").write_text("image,title\n")
    with pytest.raises(ValueError, match="holds no records"):
        open_source(str(empty), CONFIG)
    (empty / "a.csv").unlink()
    for content in (b"", b"PAR1", b"no parquet at all", b"PAR1" + bytes(100) + b"PAR1"):
        (empty / "a.parquet").write_bytes(content)
        with pytest.raises(ValueError, match="a.parquet is damaged"):
            open_source(str(empty), CONFIG)
    pq.write_table(table(3).drop(["text"]), empty / "a.parquet")
    with pytest.raises(ValueError, match="--text-column NAME"):
        open_source(str(empty), CONFIG)


def test_a_file_of_other_columns_is_named(tmp_path: Path) -> None:
    pq.write_table(table(3), tmp_path / "a.parquet")
    pq.write_table(table(3).drop(["id"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"no such column in .*b.parquet"):
        open_source(str(tmp_path), CONFIG)


def test_damage_inside_a_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(500), path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200:600] = bytes(400)
    path.write_bytes(content)
    source = open_source(str(path), CONFIG)
    with pytest.raises(ValueError, match="a.parquet is damaged"):
        records_of(source)


def test_a_changed_file_changes_the_identity(tmp_path: Path) -> None:
    pq.write_table(table(3), tmp_path / "a.parquet")
    before = open_source(str(tmp_path), CONFIG).identity
    assert open_source(str(tmp_path), CONFIG).identity == before
    pq.write_table(table(4), tmp_path / "a.parquet")
    assert open_source(str(tmp_path), CONFIG).identity != before


@pytest.mark.parametrize(("name", "num_records", "num_labels"), [("fashion", 11_783, 20), ("emoji", 3_746, 9)])
def test_real_sets_are_inspected(shared_data: Path, name: str, num_records: int, num_labels: int) -> None:
    found = inspect(str(shared_data / name), configured(), num_sampled=200)
    assert found.num_records == num_records and found.num_sampled == 200
    assert found.num_accepted == 200 and found.reasons == {}
    assert found.columns == {
        "image": "image",
        "text": "text",
        "key": "id",
        "label": "label",
        "group": "group_id",
        "split": "split",
    }
    assert set(found.splits) == {"train", "val", "test"} and len(found.labels) >= num_labels - 3


def test_inspection_says_what_would_be_rejected(tmp_path: Path) -> None:
    images = [PICTURE, b"", b"<html>", PICTURE]
    pq.write_table(pa.table({"image": images, "text": ["a", "b", "c", " "]}), tmp_path / "a.parquet")
    found = inspect(str(tmp_path), CONFIG)
    assert found.num_accepted == 1
    assert found.reasons == {"missing_picture": 1, "unreadable_picture": 1, "empty_text": 1}
