"""Filling what records of a source lack, from Parquet in to Parquet out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.fill import FillingConfig
from mlim_ray.data.result_set import ResultManifest, read_result_manifest
from mlim_ray.data.synthetic import generate
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.fill import fill, fill_job
from mlim_ray.training.loaded_run import LoadedRun, load_run
from tests.model_folder import write_model
from tests.pipelines.test_prepare import quarantine

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

CLUSTER = Cluster(2.0, 0.0, 1, 1e8, None)
NUM_RECORDS = 900


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Generated products; every third one lacks its colour, as null or as nothing to be seen."""
    products = generate(0, NUM_RECORDS, num_records=NUM_RECORDS, image_size=16)
    colours = [
        (None, "", " ")[i % 9 // 3] if i % 3 == 0 else colour for i, colour in enumerate(products["colour"].to_pylist())
    ]
    place = products.schema.get_field_index("colour")
    return products.append_column("truth", products["colour"]).set_column(place, "colour", pa.array(colours))


@pytest.fixture(scope="module")
def run(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load_run(str(write_model(tmp_path_factory.mktemp("run"), table["text"].to_pylist())))


def write(path: Path, table: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def filled(
    run: LoadedRun, source: Path, out: Path, attribute: str = "colour", **knobs: object
) -> tuple[ResultManifest, pa.Table]:
    config = FillingConfig(**knobs)  # type: ignore[arg-type]
    job = fill_job(run, str(source), str(out), attribute, run.prepare, config)
    manifest = fill(job, CLUSTER, lambda what, done, total: None, config)
    assert read_result_manifest(str(out)) == manifest
    return manifest, pa.concat_tables([pq.read_table(out / part.path) for part in manifest.parts])


def test_every_record_that_lacks_a_colour_gets_one_and_most_get_theirs(
    tmp_path: Path, table: pa.Table, run: LoadedRun
) -> None:
    manifest, rows = filled(run, write(tmp_path / "a.parquet", table), tmp_path / "out")
    truth = dict(zip(table["key"].to_pylist(), table["truth"].to_pylist(), strict=True))
    lacking = {key for i, key in enumerate(table["key"].to_pylist()) if i % 3 == 0}
    assert set(rows["key"].to_pylist()) == lacking and len(rows) == len(lacking)
    assert rows["was_missing"].to_pylist() == [True] * len(rows)
    assert rows["value"].null_count == len(rows)
    is_right = [truth[row["key"]] == row["predicted"] for row in rows.to_pylist()]
    report = json.loads((tmp_path / "out" / "fill.json").read_text())
    assert np.mean(is_right) > report["majority"] + 0.2
    assert abs(np.mean(is_right) - report["accuracy"]["mean"]) < 0.2
    confidence = rows["confidence"].to_numpy()
    assert ((confidence > 0.0) & (confidence <= 1.0)).all() and (
        confidence >= rows["second_confidence"].to_numpy()
    ).all()
    assert all(row["predicted"] != row["second"] for row in rows.to_pylist())
    assert report["num_train"] + report["num_val"] + report["num_test"] == NUM_RECORDS - len(lacking)
    assert report["num_bins"] == 15 and 0.0 <= report["ece"] <= 1.0
    assert manifest.counts.accepted == NUM_RECORDS and manifest.counts.rejected == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "parts", "fill.json"}


def test_hostile_records_are_counted_and_all_records_are_told_where_it_is_asked(
    tmp_path: Path, table: pa.Table, run: LoadedRun
) -> None:
    rows = table.to_pylist()
    rows[10]["image"], rows[20]["text"], rows[30]["key"] = b"no picture", "", rows[31]["key"]
    rows[40]["colour"] = "x" * 2_000
    source = write(tmp_path / "a.parquet", pa.Table.from_pylist(rows, table.schema))
    manifest, found = filled(run, source, tmp_path / "out", all_records=True, hides_words=False)
    counts = manifest.counts
    assert (counts.read, counts.accepted, counts.rejected, counts.duplicates) == (NUM_RECORDS, NUM_RECORDS - 4, 3, 1)
    reasons = {row["row"]: row["reason"] for row in quarantine(tmp_path / "out")}
    assert reasons == {10: "unreadable_picture", 20: "empty_text", 31: "duplicate_key", 40: "too_long"}
    assert len(found) == counts.accepted
    given = {row["key"]: (row["colour"] or "").strip() or None for row in rows if row["key"] != rows[31]["key"]}
    for row in found.to_pylist():
        if row["key"] in given:
            assert (row["value"], row["was_missing"]) == (given[row["key"]], given[row["key"]] is None)


def test_columns_that_cannot_be_learned_are_refused(tmp_path: Path, table: pa.Table, run: LoadedRun) -> None:
    source = write(tmp_path / "a.parquet", table)
    with pytest.raises(ValueError, match="--attribute hue: no such column"):
        fill_job(run, str(source), str(tmp_path / "out"), "hue", run.prepare, FillingConfig())
    with pytest.raises(ValueError, match="--attribute key: more than 50 different values"):
        filled(run, source, tmp_path / "out", "key", most_values=50)
    few = table.slice(0, 12)
    with pytest.raises(ValueError, match="--attribute colour: 8 accepted records have it, expected 20 or more"):
        filled(run, write(tmp_path / "few.parquet", few), tmp_path / "few")
    empty = table.set_column(4, "colour", pa.nulls(NUM_RECORDS, pa.string()))
    assert table.schema.names[4] == "colour"
    with pytest.raises(ValueError, match="--attribute colour: no record of .* has it"):
        filled(run, write(tmp_path / "empty.parquet", empty), tmp_path / "empty")
    assert list((tmp_path / "out").glob("*")) == []
