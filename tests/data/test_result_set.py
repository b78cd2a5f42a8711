import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.data.result_set import ResultCounts, ResultFolder, ResultManifest, read_result_manifest, write_part

ROWS = pa.table({"key": ["a", "b"], "state": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))})
COUNTS = ResultCounts(read=3, accepted=2, rejected=1, duplicates=0, reasons={"empty_text": 1})


def result_folder(path: Path) -> ResultFolder:
    return ResultFolder(str(path), "mlim_ray embeddings", ("report.json",))


def finished(path: Path, plan: str) -> ResultManifest:
    folder = result_folder(path)
    folder.open(plan)
    manifest = ResultManifest(
        format="mlim_ray embeddings",
        plan=plan,
        source="a.parquet",
        columns={},
        counts=COUNTS,
        part_schema={},
        parts=(write_part(str(path), 0, ROWS),),
        quarantine=(),
        facts={"width": 2},
        libraries={},
    )
    write_part(str(path), 7, ROWS)
    folder.close(manifest)
    return manifest


def test_a_finished_folder_holds_what_its_manifest_names_and_nothing_else(tmp_path: Path) -> None:
    manifest = finished(tmp_path, "one")
    assert read_result_manifest(str(tmp_path)) == manifest == result_folder(tmp_path).present("one")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.parquet"))] == [
        "parts/part-00000.parquet"
    ]
    assert pq.read_table(tmp_path / manifest.parts[0].path).equals(ROWS)
    assert manifest.parts[0].num_bytes == (tmp_path / manifest.parts[0].path).stat().st_size
    assert not (tmp_path / ".staging").exists()


def test_an_unfinished_run_is_continued_by_its_own_plan_alone(tmp_path: Path) -> None:
    folder = result_folder(tmp_path)
    assert not folder.open("one")
    (tmp_path / ".staging" / "slice-000000.json").write_text("{}")
    assert folder.present("one") is None
    assert folder.open("one") and (tmp_path / ".staging" / "slice-000000.json").exists()
    assert not folder.open("two") and not (tmp_path / ".staging" / "slice-000000.json").exists()
    assert not folder.open("one")


def test_what_was_killed_after_its_manifest_is_finished_and_swept(tmp_path: Path) -> None:
    manifest = finished(tmp_path, "one")
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "plan.json").write_text(json.dumps({"plan": "one"}))
    assert result_folder(tmp_path).present("one") == manifest
    assert not (tmp_path / ".staging").exists()


def test_other_results_are_refused_and_replaced_as_a_whole(tmp_path: Path) -> None:
    finished(tmp_path, "one")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ValueError, match=r"another model, source or config gave \(a\.parquet\)"):
        result_folder(tmp_path).present("two")
    assert not result_folder(tmp_path).open("two")
    assert [path.name for path in tmp_path.iterdir()] == [".staging"]


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    finished(tmp_path, "one")
    (tmp_path / "shards").mkdir()
    with pytest.raises(ValueError, match=r"other files \(shards\)"):
        result_folder(tmp_path).present("one")
    other = tmp_path / "other"
    finished(other, "one")
    with pytest.raises(ValueError, match="holds mlim_ray embeddings; name another folder"):
        ResultFolder(str(other), "mlim_ray filled attributes").present("one")


def test_a_folder_without_or_with_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it was not finished"):
        read_result_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged or of something else: format"):
        read_result_manifest(str(tmp_path))
