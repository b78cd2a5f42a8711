"""The same records come out of every form of source."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import AcceptedRecord, CleaningRules, clean
from mlim_ray.data.sources import Source, limit_slices, open_source, resolve_prepare_config
from tests.data.source_forms import FORMS, Item, some_items

NAMES = {
    "parquet": "Parquet",
    "spark": "Parquet",
    "hugging face": "Parquet",
    "parquet with paths": "Parquet",
    "csv": "CSV",
    "tsv.gz": "CSV",
    "jsonl": "JSON Lines",
    "jsonl.gz without suffix": "JSON Lines",
    "webdataset": "WebDataset",
    "tar.gz": "WebDataset",
    "folder per label": "folder per label",
}


def opened(path: Path, **knobs: Any) -> tuple[Source, PrepareConfig]:
    config = resolve_prepare_config(PrepareConfig(**knobs), 16)
    return open_source(str(path), config), config


def accepted(source: Source, config: PrepareConfig, max_records: int = 1_000) -> list[AcceptedRecord]:
    parts = limit_slices(source.slices(), max_records)
    records = [record for part in parts for batch in source.read(part) for record in batch]
    cleaned = clean(records, CleaningRules.of(config, source.columns.split is not None))
    assert cleaned.rejected == []
    return cleaned.accepted


def facts(records: list[AcceptedRecord]) -> list[tuple[Any, ...]]:
    return sorted((record.key, record.text, record.label, record.split, record.image) for record in records)


@pytest.fixture(scope="module")
def fashion(shared_data: Path) -> list[Item]:
    (path,) = (shared_data / "fixtures" / "fashion").glob("*.parquet")
    return [
        Item(row["id"], row["image"], row["text"], row["base_colour"], row["label"], row["group_id"], row["split"])
        for row in pq.read_table(path).to_pylist()
    ]


@pytest.fixture(scope="module")
def expected(fashion: list[Item], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    write, knobs = FORMS["parquet"]
    found = facts(accepted(*opened(write(tmp_path_factory.mktemp("expected"), fashion), **knobs)))
    assert [fact[0] for fact in found] == sorted(item.id for item in fashion)
    assert {fact[:3] for fact in found} == {(item.id, " ".join(item.title.split()), item.label) for item in fashion}
    return found


@pytest.mark.parametrize("form", FORMS)
def test_real_records_come_out_of_every_form(
    form: str, fashion: list[Item], expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    write, knobs = FORMS[form]
    source, config = opened(write(tmp_path, fashion), **knobs)
    assert source.format == NAMES[form] and len(fashion) == 64
    assert facts(accepted(source, config)) == expected
    assert facts(accepted(source, config, max_records=5)) == expected
    if form != "folder per label":
        groups = {record.key: record.group for record in accepted(source, config)}
        assert groups == {item.id: item.group_id for item in fashion}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "folder per label"])
def test_a_template_joins_columns_of_every_table(form: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    items = some_items()
    path = write(tmp_path, items)
    source, config = opened(path, text="{brand}: {title} ({group_id})", **knobs)
    texts = {record.key: record.text for record in accepted(source, config)}
    assert texts == {item.id: f"{item.brand}: {item.title} ({item.group_id})" for item in items}
    assert source.columns.by_role()["text"] == "{brand}: {title} ({group_id})"
    with pytest.raises(ValueError, match=r"--text '\{brand\} \{maker\}': \{maker\}: no such column in .*title"):
        opened(path, text="{brand} {maker}", **knobs)
    with pytest.raises(ValueError, match="--text and --text-column are both given"):
        opened(path, text="{brand}", text_column="title", **knobs)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "folder per label"])
def test_attributes_come_out_of_every_table(form: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    items = some_items()
    items[3] = replace(items[3], brand="")
    path = write(tmp_path, items)
    source, config = opened(path, attribute_columns=("brand", "group_id"), **knobs)
    found = {record.key: record.attributes for record in accepted(source, config)}
    expected = {item.id: {"brand": item.brand, "group_id": item.group_id} for item in items}
    del expected["k3"]["brand"]
    assert found == expected
    plain = accepted(*opened(path, **knobs))
    assert facts(plain) == facts(accepted(source, config)) and not any(record.attributes for record in plain)
    with pytest.raises(ValueError, match="--attribute-columns maker: no such column in .*brand"):
        opened(path, attribute_columns=("maker",), **knobs)


def test_pictures_in_folders_have_no_attributes(tmp_path: Path) -> None:
    write, knobs = FORMS["folder per label"]
    with pytest.raises(ValueError, match="--attribute-columns label: pictures in folders have no attributes"):
        opened(write(tmp_path, some_items()), attribute_columns=("label",), **knobs)


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_file_changes_the_identity_and_reading_does_not(form: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    path = write(tmp_path, some_items())
    source, config = opened(path, **knobs)
    before = source.identity
    accepted(source, config)
    assert opened(path, **knobs)[0].identity == before
    for file in [file for file in tmp_path.rglob("*") if file.is_file() and not file.name.startswith("_")]:
        before = opened(path, **knobs)[0].identity
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
        assert opened(path, **knobs)[0].identity != before, file


@pytest.mark.parametrize("form", FORMS)
def test_the_form_can_be_named_and_a_wrong_one_is_refused(form: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    path = write(tmp_path, some_items())
    right = {"Parquet": "parquet", "CSV": "csv", "JSON Lines": "jsonl", "WebDataset": "webdataset"}
    name = right.get(NAMES[form], "folder")
    source, config = opened(path, format=name, **knobs)
    assert len(accepted(source, config)) == 12
    pictures_beside = bool([*tmp_path.rglob("*.png")]) and path.is_dir()
    for wrong in {"parquet", "csv", "jsonl", "webdataset", "folder"} - {name}:
        if wrong == "folder" and pictures_beside:
            continue
        with pytest.raises(ValueError, match=f"--format {wrong}: no .* file in {path}, which holds "):
            opened(path, format=wrong)
