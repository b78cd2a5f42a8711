"""Lance datasets as a source."""

import sys
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import AcceptedRecord, CleaningRules, RawRecord, clean
from mlim_ray.data.sources import Source, limit_slices, open_new_files, open_source, open_with_files
from mlim_ray.data.sources import resolve_prepare_config as resolve
from tests.data.source_forms import FORMS, Item, some_items, write_pictures


def configured(**knobs: Any) -> PrepareConfig:
    return resolve(PrepareConfig(**knobs), 16)


def read(source: Source, max_records: int = 1_000) -> list[RawRecord]:
    parts = limit_slices(source.slices(), max_records)
    return [record for part in parts for batch in source.read(part) for record in batch]


def accepted(source: Source, config: PrepareConfig) -> list[AcceptedRecord]:
    cleaned = clean(read(source), CleaningRules.of(config, source.columns.split is not None))
    assert cleaned.rejected == []
    return cleaned.accepted


def rows(items: list[Item]) -> pa.Table:
    fields = [{"image": item.picture, **item.fields()} for item in items]
    return pa.Table.from_pylist(fields)


def test_real_records_are_those_of_the_same_parquet_file(shared_data: Path, tmp_path: Path) -> None:
    (path,) = (shared_data / "fixtures" / "fashion").glob("*.parquet")
    table, config = pq.read_table(path), configured()
    lance.write_dataset(table, tmp_path / "fashion.lance", max_rows_per_file=20, max_rows_per_group=10)
    ours, theirs = (open_source(str(source), config) for source in (tmp_path / "fashion.lance", path))
    assert (ours.format, ours.columns) == ("Lance", theirs.columns)
    expected = [(r.row, r.key, r.text, r.label, r.group, r.split, r.image) for r in accepted(theirs, config)]
    assert len(expected) == 64
    assert [(r.row, r.key, r.text, r.label, r.group, r.split, r.image) for r in accepted(ours, config)] == expected
    assert {record.source for record in read(ours)} == {"fashion.lance"}
    assert read(ours, max_records=7) == read(ours)


def test_an_opened_version_stays_as_it_is(tmp_path: Path) -> None:
    items = some_items(40)
    place = str(tmp_path / "items.lance")
    dataset = lance.write_dataset(rows(items[:30]), place, max_rows_per_file=12)
    before = open_source(place, configured())
    dataset.delete("id in ('k0', 'k17', 'k29')")
    lance.write_dataset(rows(items[30:]), place, mode="append")
    after = open_source(place, configured())
    assert [record.key for record in read(before)] == [f"k{i}".encode() for i in range(30)]
    left = [f"k{i}".encode() for i in range(40) if i not in {0, 17, 29}]
    assert [(record.row, record.key) for record in read(after)] == list(enumerate(left))
    assert read(after, max_records=5) == read(after)
    assert before.identity != after.identity == open_source(place, configured()).identity


def test_templates_attributes_and_paths_work_as_in_other_tables(tmp_path: Path) -> None:
    items = some_items()
    write_pictures(tmp_path, items)
    table = rows(items).drop(["image"]).append_column("image", pa.array([item.file for item in items]))
    lance.write_dataset(table, tmp_path / "items.lance")
    config = configured(text="{brand}: {title}", attribute_columns=("group_id",))
    found = accepted(open_source(str(tmp_path / "items.lance"), config), config)
    write, knobs = FORMS["parquet with paths"]
    (tmp_path / "parquet").mkdir()
    expected = accepted(open_source(str(write(tmp_path / "parquet", items)), config), config)
    assert [(r.key, r.text, r.attributes, r.image) for r in found] == [
        (r.key, r.text, r.attributes, r.image) for r in expected
    ]
    assert len(found) == 12 and not knobs


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_pictures_that_are_blobs_are_read(tmp_path: Path, version: str) -> None:
    items = some_items()
    blob = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    table = rows(items).set_column(0, blob, pa.array([item.picture for item in items], pa.large_binary()))
    lance.write_dataset(table, tmp_path / "items.lance", data_storage_version=version)
    found = read(open_source(str(tmp_path / "items.lance"), configured()))
    assert [record.image for record in found] == [item.picture for item in items]


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "items.lance"
    lance.write_dataset(rows(some_items()), place)
    config = configured()
    with pytest.raises(ValueError, match=r"--format csv given for .*items.lance, which is a Lance dataset"):
        open_source(str(place), configured(format="csv"))
    with pytest.raises(ValueError, match="items.lance has no files to append"):
        open_new_files(str(place), config, open_with_files(str(place), config).files)
    lance.write_dataset(rows(some_items()).slice(0, 0), tmp_path / "empty.lance")
    with pytest.raises(ValueError, match="empty.lance holds no records"):
        open_source(str(tmp_path / "empty.lance"), config)
    source = open_source(str(place), config)
    (data,) = (place / "data").iterdir()
    data.write_bytes(data.read_bytes()[:500])
    with pytest.raises(ValueError, match="items.lance is damaged or no Lance dataset"):
        read(source)
    for manifest in (place / "_versions").glob("*.manifest"):
        manifest.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="items.lance is damaged or no Lance dataset"):
        open_source(str(place), config)
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(ValueError, match=r"not installed; install it with `pip install 'mlim-ray\[lance\]'`"):
        open_source(str(place), config)
