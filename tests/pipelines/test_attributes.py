"""Attribute columns, from a source to the examples that evaluations read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.data.manifest import OLDEST_VERSION
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.examples import load_examples
from mlim_ray.pipelines.prepare import append, prepare, requeue
from tests.data.pictures import encoded, noise
from tests.pipelines.test_prepare import check_accounts, configured, contents, quarantine, write_source

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

NAMES = ("hue", "year", "price")
SPLITS = ("train", "val", "test")


def write_catalogue(path: Path, num_rows: int, bad: dict[int, dict[str, Any]] | None = None, first: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"k{i}",
            "image": encoded(noise(20, 20, i % 7)),
            "text": f"shirt number {i}",
            "hue": ("red", "blue", None, "")[i % 4],
            "year": 2000 + i if i % 3 else None,
            "price": i / 2,
        }
        | (bad or {}).get(i, {})
        for i in range(first, first + num_rows)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def expected(i: int) -> dict[str, str | None]:
    hue, year = ("red", "blue", None, None)[i % 4], str(2000 + i) if i % 3 else None
    return {"hue": hue, "year": year, "price": repr(i / 2)}


def attributes(out: str) -> dict[str, dict[str, str | None]]:
    found = {}
    for split in SPLITS:
        examples = load_examples(PreparedSet.open(out), split)
        assert tuple(examples.attributes) == PreparedSet.open(out).manifest.attributes
        for i, key in enumerate(examples.keys):
            found[key] = {name: values[i] for name, values in examples.attributes.items()}
    return found


def test_attributes_stand_beside_every_record_whatever_way_it_came(tmp_path: Path) -> None:
    source, out = tmp_path / "in", str(tmp_path / "out")
    bad = {10: {"image": b"none"}, 20: {"hue": "x" * 2_000}}
    write_catalogue(source / "a.parquet", 300, bad)
    config = configured(attribute_columns=NAMES)
    check_accounts(prepare(str(source), out, config, keep_rejected=True))
    rejected = {row["row"]: row for row in quarantine(tmp_path / "out")}
    assert rejected[20]["reason"] == "too_long" and rejected[20]["detail"].startswith("attribute hue: 2000 characters")
    assert json.loads(rejected[10]["attributes"]) == {"hue": None, "year": "2010", "price": "5.0"}
    write_catalogue(source / "b.parquet", 90, first=300)
    check_accounts(append(str(source), out, config))
    for row in rejected.values():
        row["image"] = encoded(noise(20, 20, 1))
    rejected[20]["attributes"] = json.dumps(expected(20)).encode()
    schema = pq.read_schema(next((tmp_path / "out" / "quarantine").iterdir()))
    pq.write_table(pa.Table.from_pylist(list(rejected.values()), schema), tmp_path / "mended.parquet")
    check_accounts(requeue(out, str(tmp_path / "mended.parquet"), config))
    assert attributes(out) == {f"k{i}": expected(i) for i in range(390)}
    prepared = PreparedSet.open(out)
    prepared.verify()
    assert prepared.manifest.attributes == NAMES and "attributes" in prepared.manifest.shard_schema
    with pytest.raises(ValueError, match="--attribute-columns: given hue, and|--attribute-columns: given .*hue"):
        append(str(source), out, configured(attribute_columns=("hue",)))
    # The set as a source of another one, with some of its attributes.
    other = str(tmp_path / "other")
    prepare(out, other, configured(8, attribute_columns=("year",)))
    assert attributes(other) == {f"k{i}": {"year": expected(i)["year"]} for i in range(390)}
    with pytest.raises(ValueError, match="--attribute-columns brand: the prepared set .* only hue, year, price"):
        prepare(out, str(tmp_path / "third"), configured(8, attribute_columns=("brand",)))


def test_sets_with_and_without_attributes_hold_the_same_records(tmp_path: Path) -> None:
    source = write_catalogue(tmp_path / "a.parquet", 300)
    for name in ("one", "two"):
        prepare(str(source), str(tmp_path / name), configured(attribute_columns=NAMES))
    prepare(str(source), str(tmp_path / "plain"), configured())
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, plain = PreparedSet.open(str(tmp_path / "one")), PreparedSet.open(str(tmp_path / "plain"))
    for split in SPLITS:
        table = one.read(split)
        assert table.drop(["attributes"]).equals(plain.read(split))
    assert plain.manifest.attributes == () and load_examples(plain, "train").attributes == {}
    assert one.manifest.fingerprint != plain.manifest.fingerprint


def test_a_set_of_the_version_before_is_read_grown_and_known_as_prepared(tmp_path: Path) -> None:
    source, out = tmp_path / "in", str(tmp_path / "out")
    write_source(source / "a.parquet", 60)
    prepare(str(source), out, configured())
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["config"]["attribute_columns"]
    path.write_text(json.dumps(manifest | {"version": OLDEST_VERSION}))
    assert prepare(str(source), out, configured()).already_prepared
    assert len(load_examples(PreparedSet.open(out), "train")) == 36
    write_source(source / "b.parquet", 60, first=60)
    assert append(str(source), out, configured()).newly_accepted == 60
    with pytest.raises(ValueError, match="--overwrite"):
        prepare(str(source), out, configured(attribute_columns=("label",)))


def test_the_generated_catalogue_gives_its_own_attributes(tmp_path: Path) -> None:
    prepare("generated:300", str(tmp_path / "out"), configured(attribute_columns=("colour", "size")))
    examples = load_examples(PreparedSet.open(str(tmp_path / "out")), "train")
    assert set(examples.attributes["size"]) == {"small", "medium", "large"}
    chosen = np.array([5, 2])
    taken = examples.take(chosen)
    assert taken.attributes["colour"].tolist() == examples.attributes["colour"][chosen].tolist()
