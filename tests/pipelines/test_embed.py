"""Embeddings of a whole source against those of the plain model, record by record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.result_set import ResultManifest, read_result_manifest
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.evaluation.embedding import COLUMN_OF
from mlim_ray.evaluation.showing import SHOWN, encode_pooled
from mlim_ray.pipelines.actor_map import ActorPlan, ModelWork, map_on_actors
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.embed import embed, embed_job
from mlim_ray.pipelines.preparation import TooManyRejected
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.training.loaded_run import LoadedRun, load_run
from tests.data.rejected import rejected_pictures
from tests.model_folder import write_model
from tests.pipelines.test_prepare import contents, quarantine, write_source

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

CLUSTER = Cluster(2.0, 0.0, 1, 1e8, None)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load_run(str(write_model(tmp_path_factory.mktemp("run"), ["shirt number 0 1 2 3 4 5 6 7 8 9"])))


def embedded(
    run: LoadedRun, source: Path | str, out: Path, config: EmbedConfig | None = None, **knobs: Any
) -> ResultManifest:
    config = config or EmbedConfig(batch_size=64)
    job = embed_job(run, str(source), str(out), run.prepare.model_copy(update=knobs), config)
    assert job.folder.present(job.plan) is None
    manifest = embed(job, CLUSTER, lambda what, done, total: None, config)
    assert read_result_manifest(str(out)) == manifest
    check_accounts(manifest, out)
    return manifest


def rows_of(out: Path) -> pa.Table:
    manifest = read_result_manifest(str(out))
    return pa.concat_tables([pq.read_table(out / part.path) for part in manifest.parts])


def check_accounts(manifest: ResultManifest, out: Path) -> None:
    """C4, from what was written."""
    counts, rows = manifest.counts, quarantine(out)
    keys = rows_of(out)["key"].to_pylist()
    assert counts.read == counts.accepted + counts.rejected + counts.duplicates
    assert len(keys) == len(set(keys)) == counts.accepted
    assert len(rows) == counts.rejected + counts.duplicates
    assert Counter(row["reason"] for row in rows) == counts.reasons
    assert {path.name for path in out.iterdir()} <= {"manifest.json", "parts", "quarantine"}


def plain(run: LoadedRun, prepared: Path) -> dict[str, dict[str, np.ndarray]]:
    """Each record of a prepared set alone through the plain model."""
    from mlim_ray.data.prepared import PreparedSet
    from mlim_ray.evaluation.examples import load_examples

    found = {}
    for split in ("train", "val", "test"):
        examples = load_examples(PreparedSet.open(str(prepared)), split)
        for i, key in enumerate(examples.keys):
            record = examples.records.take(slice(i, i + 1))
            found[key] = {COLUMN_OF[side]: encode_pooled(run.model, record, side)[0].numpy() for side in SHOWN}
    return found


def test_every_embedding_is_that_of_the_plain_model_from_a_raw_source_and_from_a_prepared_set(
    tmp_path: Path, run: LoadedRun
) -> None:
    faults = [({"image": image}, reason) for image, reason in rejected_pictures().values()]
    faults += [({"text": ""}, "empty_text"), ({"id": None}, "null_key")]
    bad = {7 * i: change for i, (change, _) in enumerate(faults)}
    bad |= {501: {"id": "k502", "text": "the first of two"}, 1_100: {"id": "k1"}}
    source = write_source(tmp_path / "in" / "a.parquet", 1_200, bad)
    write_source(tmp_path / "in" / "b.parquet", 900, first=1_150)
    model = tmp_path / "run"
    tokenizer = write_model(model, ["unused"]).joinpath("model")
    for name, content in run.tokenizer.files().items():
        (tokenizer / name).write_bytes(content)
    knobs = {"tokenizer": str(tokenizer), "max_tokens": 10, "max_rejected_ratio": 0.5}
    prepared = prepare(str(source.parent), str(tmp_path / "set"), resolve_prepare_config(PrepareConfig(**knobs), 16))
    manifest = embedded(run, source.parent, tmp_path / "raw", max_rejected_ratio=0.5)
    counts = manifest.counts
    assert (counts.read, counts.accepted, counts.rejected, counts.duplicates) == (
        *(prepared.read, prepared.accepted),
        *(prepared.rejected, prepared.duplicates),
    )
    assert counts.duplicates == 52 and counts.reasons == prepared.reasons
    expected = plain(run, tmp_path / "set")
    embedded(run, tmp_path / "set", tmp_path / "again")
    for out in (tmp_path / "raw", tmp_path / "again"):
        rows = rows_of(out)
        assert set(rows["key"].to_pylist()) == set(expected)
        assert rows.schema.field("joint").type == pa.list_(pa.float32(), 32)
        for row in rows.to_pylist():
            for column, state in expected[row["key"]].items():
                np.testing.assert_allclose(row[column], state, atol=TOLERANCE)
    assert contents(tmp_path / "raw" / "parts") == contents(tmp_path / "again" / "parts")


def test_embeddings_can_be_short_and_of_half_the_size(tmp_path: Path, run: LoadedRun) -> None:
    source = write_source(tmp_path / "a.parquet", 150)
    embedded(run, source, tmp_path / "plain")
    embedded(run, source, tmp_path / "half", EmbedConfig(dtype="float16", normalise=True))
    whole, half = rows_of(tmp_path / "plain"), rows_of(tmp_path / "half")
    assert half.schema.field("image").type == pa.list_(pa.float16(), 32)
    for column in COLUMN_OF.values():
        states = np.array(whole[column].to_pylist())
        expected = states / np.linalg.norm(states, axis=1, keepdims=True)
        np.testing.assert_allclose(np.array(half[column].to_pylist(), np.float32), expected, atol=1e-3)


def test_parts_are_the_same_by_way_of_however_many_files(
    tmp_path: Path, run: LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "a.parquet", 150)
    monkeypatch.setattr("mlim_ray.pipelines.result_job._PART_BYTES", 8_000)
    manifest = embedded(run, source, tmp_path / "direct")
    assert len(manifest.parts) > 4
    monkeypatch.setattr("mlim_ray.data.shuffle.ENOUGH_CELLS", 0)
    embedded(run, source, tmp_path / "regrouped")
    assert contents(tmp_path / "direct") == contents(tmp_path / "regrouped")


def test_the_same_again_is_there_already_and_anything_else_is_refused(tmp_path: Path, run: LoadedRun) -> None:
    source, out = write_source(tmp_path / "a.parquet", 40), tmp_path / "out"
    manifest = embedded(run, source, out)
    config = EmbedConfig(batch_size=64)
    job = embed_job(run, str(source), str(out), run.prepare, config)
    assert job.folder.present(job.plan) == manifest
    other = embed_job(run, str(source), str(out), run.prepare, EmbedConfig(normalise=True))
    with pytest.raises(ValueError, match="another model, source or config gave.*--overwrite"):
        other.folder.present(other.plan)
    before = contents(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"other files \(notes\.txt\)"):
        job.folder.present(job.plan)
    (out / "notes.txt").unlink()
    assert contents(out) == before


def test_too_many_rejected_stops_and_keeps_the_quarantine_alone(tmp_path: Path, run: LoadedRun) -> None:
    source = write_source(tmp_path / "a.parquet", 100, {i: {"text": ""} for i in range(6)})
    job = embed_job(run, str(source), str(tmp_path / "out"), run.prepare, EmbedConfig())
    with pytest.raises(TooManyRejected, match="6 of the first 100"):
        embed(job, CLUSTER, lambda what, done, total: None, EmbedConfig())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quarantine"]
    assert len(quarantine(tmp_path / "out")) == 6


def count_letters() -> Any:
    """A second part that is made once in each actor."""
    return lambda piece: f"{len(piece)}"


def in_letters(number: int) -> bytes:
    if number == 99:
        raise ValueError("piece 99 is bad")
    return b"\x00" * number


@pytest.mark.parametrize("cleans_apart", [False, True])
def test_pieces_come_in_order_whoever_does_their_first_part(cleans_apart: bool) -> None:
    plan = ActorPlan(1 if cleans_apart else 2, 1.0, 0.0, 1, cleans_apart=cleans_apart)
    numbers = [5, 3, 40, 0, 7]
    assert list(map_on_actors(ModelWork(in_letters, count_letters), numbers, plan)) == ["5", "3", "40", "0", "7"]
    with pytest.raises(ValueError, match="^piece 99 is bad$"):
        list(map_on_actors(ModelWork(in_letters, count_letters), [1, 99, 2], plan))
    assert list(map_on_actors(ModelWork(in_letters, count_letters), [], plan)) == []
