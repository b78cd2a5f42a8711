"""Sets that grow: new files appended, rejected records brought back, and runs that hold on to what they began with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config import PretrainConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.pipelines.feed import stream_batches
from mlim_ray.pipelines.prepare import append, prepare, requeue
from mlim_ray.training.batch import Masking
from mlim_ray.training.stream import ShardReader, read_groups, resident_batches, stream_order
from tests.data.pictures import encoded, noise
from tests.pipelines.test_prepare import check_accounts, configured, contents, quarantine, write_source

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def texts(out: str) -> dict[str, str]:
    rows = [
        row
        for split in ("train", "val", "test")
        for row in PreparedSet.open(out).read(split, ["key", "text"]).to_pylist()
    ]
    return {row["key"]: row["text"] for row in rows}


def test_appended_files_are_a_generation_that_leaves_the_old_shards_alone(tmp_path: Path) -> None:
    source, out = tmp_path / "in", str(tmp_path / "out")
    write_source(source / "a.parquet", 300, {7: {"image": b""}})
    first = prepare(str(source), out, configured())
    before = contents(tmp_path / "out")
    manifest = PreparedSet.open(out).manifest
    # Ten keys again, one of them in another split, and a rejected one.
    write_source(source / "b.parquet", 200, {0: {"split": "test"}, 9: {"text": ""}}, first=290)
    with pytest.raises(ValueError, match="before the source had 1 of its files; add them with --append"):
        prepare(str(source), out, configured())
    second = append(str(source), out, configured())
    check_accounts(second)
    assert (second.read, second.rejected, second.generations) == (500, 2, 2)
    assert second.accepted == first.accepted + 190 and second.newly_accepted == 190 and second.duplicates == 9
    after = contents(tmp_path / "out")
    kept = {name: sha for name, sha in before.items() if name != "manifest.json"}
    assert {name: after.get(name) for name in kept} == kept
    duplicates = {row["key"]: row for row in quarantine(tmp_path / "out") if row["reason"] == "duplicate_key"}
    assert "earlier generation" in duplicates["k290"]["detail"]
    assert "it is in split train, this one in split test" in duplicates["k290"]["detail"]
    grown = PreparedSet.open(out)
    grown.verify()
    assert grown.manifest.statistics == manifest.statistics and grown.manifest.tokenizer == manifest.tokenizer
    assert grown.manifest.fingerprint != manifest.fingerprint
    assert len(grown.short_groups("train")) == 2 and sum(grown.row_groups("train")) == grown.num_records("train")
    assert texts(out)["k480"] == "shirt number 480"
    assert append(str(source), out, configured()).already_prepared
    assert prepare(str(source), out, configured()).already_prepared


def test_append_refuses_what_would_change_the_set(tmp_path: Path) -> None:
    source, out = tmp_path / "in", str(tmp_path / "out")
    write_source(source / "a.parquet", 60)
    prepare(str(source), out, configured())
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=r"--max-tokens: given 12, .* prepared with 24"):
        append(str(source), out, configured(max_tokens=12))
    with pytest.raises(ValueError, match="no files to append"):
        append("generated:10", out, configured())
    write_source(source / "a.parquet", 61)
    with pytest.raises(ValueError, match=r"a.parquet of .* changed since the set was made"):
        append(str(source), out, configured())
    with pytest.raises(ValueError, match="is no prepared set"):
        append(str(source), str(tmp_path / "none"), configured())
    assert contents(tmp_path / "out") == before


def test_a_set_of_many_generations_equals_itself_in_any_parallelism(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_source(tmp_path / name / "in" / "a.parquet", 130)
        prepare(str(tmp_path / name / "in"), str(tmp_path / name / "out"), configured())
        for i in range(3):
            write_source(tmp_path / name / "in" / f"b{i}.parquet", 50, first=1_000 * (i + 1))
            append(str(tmp_path / name / "in"), str(tmp_path / name / "out"), configured())
    one, two = (
        {path: sha for path, sha in contents(tmp_path / name / "out").items() if not path.startswith("origin/")}
        for name in ("one", "two")
    )
    assert one == two
    assert len(texts(str(tmp_path / "one" / "out"))) == 280


def test_originals_are_kept_on_request_and_repaired_ones_return(tmp_path: Path) -> None:
    good = encoded(noise(20, 20, 3))
    bad: dict[int, dict[str, Any]] = {
        10: {"image": good[:200]},
        20: {"image": encoded(noise(200, 20))},
        30: {"text": ""},
        40: {"id": None},
        50: {"split": "holdout"},
    }
    source, out = write_source(tmp_path / "a.parquet", 200, bad), str(tmp_path / "out")
    config = configured(max_image_pixels=1_000)
    first = prepare(str(source), out, config, keep_rejected=True)
    rows = {row["row"]: row for row in quarantine(tmp_path / "out")}
    assert first.rejected == 5 and set(rows) == set(bad)
    assert rows[10]["image"] == good[:200] and rows[10]["text"] == b"shirt number 10"
    assert rows[50]["split"] == b"holdout" and rows[50]["original_key"] == b"k50" and rows[40]["original_key"] is None
    # Another rule alone brings one back; the others stay where they are.
    second = requeue(out, None, config.model_copy(update={"max_image_pixels": 10_000}))
    check_accounts(second)
    assert (second.read, second.accepted, second.rejected, second.newly_accepted) == (200, 196, 4, 1)
    assert set(row["row"] for row in quarantine(tmp_path / "out")) == {10, 30, 40, 50}
    # Rows of the quarantine, edited.
    edited = [row for row in quarantine(tmp_path / "out") if row["row"] != 30]
    for row in edited:
        change = {10: {"image": good}, 40: {"key": "brand new"}, 50: {"split": b"val"}}[row["row"]]
        row.update(change)
    repaired = tmp_path / "repaired.parquet"
    pq.write_table(
        pa.Table.from_pylist(edited, pq.read_schema(next((tmp_path / "out" / "quarantine").iterdir()))), repaired
    )
    third = requeue(out, str(repaired), config)
    check_accounts(third)
    assert (third.accepted, third.rejected, third.generations) == (199, 1, 3)
    assert texts(out)["brand new"] == "shirt number 40" and texts(out)["k50"] == "shirt number 50"
    # Any records with the rejected ones' keys do as well.
    write_source(tmp_path / "again.parquet", 1, {0: {"text": "a shirt after all"}}, first=30)
    fourth = requeue(out, str(tmp_path / "again.parquet"), config)
    check_accounts(fourth)
    assert (fourth.accepted, fourth.rejected) == (200, 0) and texts(out)["k30"] == "a shirt after all"
    assert not quarantine(tmp_path / "out")
    PreparedSet.open(out).verify()
    assert PreparedSet.open(out).num_records("val") == 41


def test_a_repaired_record_that_is_none_of_the_rejected_is_refused(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "a.parquet", 60, {5: {"image": b""}}), str(tmp_path / "out")
    prepare(str(source), out, configured())
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="holds no original bytes"):
        requeue(out, None, configured())
    write_source(tmp_path / "b.parquet", 1, first=17)
    with pytest.raises(ValueError, match=r"has the key 'k17', which the quarantine"):
        requeue(out, str(tmp_path / "b.parquet"), configured())
    row = quarantine(tmp_path / "out")[0]
    for rows, message in (([row | {"row": 6}], "row 6 of a.parquet, which is not in"), ([row, row], "twice")):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
        with pytest.raises(ValueError, match=message):
            requeue(out, str(tmp_path / "rows.parquet"), configured())
    with pytest.raises(ValueError, match="--image-size"):
        requeue(out, str(tmp_path / "rows.parquet"), configured(24))
    assert contents(tmp_path / "out") == before


def test_nothing_in_a_set_tells_where_or_when_it_was_made(tmp_path: Path) -> None:
    table = pa.table({"file": ["p/0.png", "p/1.png", "p/none.png"] * 40, "title": [f"shirt {i}" for i in range(120)]})
    for name in ("one", "two"):
        folder = tmp_path / name / "source"
        (folder / "pictures" / "p").mkdir(parents=True)
        for i in range(2):
            (folder / "pictures" / "p" / f"{i}.png").write_bytes(encoded(noise(20, 20, i)))
        (folder / "table").mkdir()
        pq.write_table(table, folder / "table" / "a.parquet")
    config = resolve_prepare_config(PrepareConfig(vocabulary_size=200, max_rejected_ratio=0.5), 16)
    for name in ("one", "two"):
        folder = str(tmp_path / name / "source" / "pictures")
        prepare(
            str(tmp_path / name / "source" / "table"),
            str(tmp_path / name / "out"),
            config.model_copy(update={"image_folder": folder}),
            keep_rejected=True,
        )
    one, two = (contents(tmp_path / name / "out") for name in ("one", "two"))
    assert {n: s for n, s in one.items() if "origin" not in n} == {n: s for n, s in two.items() if "origin" not in n}
    written = b"".join(path.read_bytes() for path in (tmp_path / "one" / "out").rglob("*.*") if path.is_file())
    assert str(tmp_path).encode() not in written
    manifest = json.loads((tmp_path / "one" / "out" / "manifest.json").read_text())
    assert manifest["generations"][0]["source"] == "table" and manifest["counts"]["rejected"] == 40
    assert {"pyarrow", "pillow", "tokenizers"} <= set(manifest["libraries"])
    assert set(Counter(manifest["shard_schema"])) >= {"key", "image", "token_ids"}


def test_a_shard_of_an_old_generation_is_found_damaged(tmp_path: Path) -> None:
    source, out = tmp_path / "in", str(tmp_path / "out")
    write_source(source / "a.parquet", 80, {3: {"text": ""}})
    prepare(str(source), out, configured())
    write_source(source / "b.parquet", 80, first=500)
    append(str(source), out, configured())
    for kind in ("shards", "tokenizer", "quarantine"):
        path = sorted((tmp_path / "out" / kind).iterdir())[0]
        content = path.read_bytes()
        path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        with pytest.raises(ValueError, match=f"{path.name} differs from its manifest"):
            PreparedSet.open(out).verify()
        path.unlink()
        with pytest.raises(ValueError, match=f"{path.name} is missing"):
            PreparedSet.open(out).verify()
        path.write_bytes(content)
    PreparedSet.open(out).verify()


def test_a_set_of_another_version_is_refused_by_every_user(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "a.parquet", 60), str(tmp_path / "out")
    prepare(str(source), out, configured())
    path = tmp_path / "out" / "manifest.json"
    path.write_text(path.read_text().replace('"version": 3', '"version": 4', 1))
    for use in (
        lambda: prepare(str(source), out, configured()),
        lambda: append(str(source), out, configured()),
        lambda: requeue(out, None, configured()),
        lambda: prepare(out, str(tmp_path / "other"), configured()),
    ):
        with pytest.raises(ValueError, match="newer mlim_ray"):
            use()
    shutil.rmtree(out)


def test_a_grown_set_feeds_every_record_once_an_epoch_streamed_as_resident(tmp_path: Path) -> None:
    source, out = tmp_path / "in", str(tmp_path / "out")
    write_source(source / "a.parquet", 300)
    prepare(str(source), out, configured())
    write_source(source / "b.parquet", 333, first=1_000)
    append(str(source), out, configured())
    prepared = PreparedSet.open(out)
    config = PretrainConfig()
    order = stream_order(prepared, config.train.model_copy(update={"batch_size": 50}), config.feed)
    masking = Masking(config.masking, 3, 16)
    lanes = range(order.num_lanes)
    records = read_groups(prepared, range(prepared.num_groups("train")))
    resident = list(resident_batches(records, order, masking, lanes, 0, 2 * order.epoch_steps))
    streamed = list(stream_batches(ShardReader(prepared, order, masking, lanes), 0, 2 * order.epoch_steps))
    for one, two in zip(resident, streamed, strict=True):
        for name, a, b in zip(one._fields, one, two, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    keys = prepared.read("train", ["key_hash"])["key_hash"].to_numpy()
    for epoch in (resident[: order.epoch_steps], resident[order.epoch_steps :]):
        np.testing.assert_array_equal(np.sort(np.concatenate([b.key_hash_B for b in epoch])), np.sort(keys))


@pytest.mark.long
def test_a_run_refuses_to_resume_on_a_set_that_grew(tmp_path: Path) -> None:
    source, out, run = tmp_path / "in", tmp_path / "out", tmp_path / "run"
    write_source(source / "a.parquet", 300)
    prepare(str(source), str(out), configured(32))
    command = [sys.executable, str(ROOT / "experiments" / "pretrain.py"), "--data", str(out), "--out", str(run)]
    command += ["--steps", "3", "--probe.num-records", "16", "--no-dashboard"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    first = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    pinned = json.loads((run / "environment.json").read_text())["manifest_sha256"]
    assert pinned == hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    # As a run that was stopped on its way.
    (run / "evaluation.json").unlink()
    write_source(source / "b.parquet", 50, first=1_000)
    append(str(source), str(out), configured(32))
    for more in (["--dry-run"], []):
        again = subprocess.run(
            [*command, "--resume", *more], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert again.returncode == 2 and "was started on another state of the set" in again.stderr, again.stderr
    assert json.loads((run / "environment.json").read_text())["manifest_sha256"] == pinned


def test_new_pictures_of_a_folder_and_new_lines_of_a_shop_are_told_from_old_ones(tmp_path: Path) -> None:
    def write_picture(path: Path, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(20, 20, seed)))

    labels, shop = tmp_path / "labels", tmp_path / "shop"
    for i in range(40):
        write_picture(labels / ("cat" if i % 2 else "dog") / f"{i}.png", i)
        write_picture(shop / "pictures" / f"{i}.png", i)
    (labels / "cat" / "1.txt").write_text("a cat called One")
    lines = [f"pictures/{i}.png,shirt {i}" for i in range(50)]
    (shop / "a.csv").write_text("\n".join(["image,title", *lines[:40]]))
    for source in (labels, shop):
        prepare(str(source), str(tmp_path / "out" / source.name), configured())
    write_picture(labels / "cat" / "new.png", 50)
    (labels / "cat" / "new.txt").write_text("a new cat")
    write_picture(labels / "fox" / "first.png", 51)
    for i in range(40, 50):
        write_picture(shop / "pictures" / f"{i}.png", i)
    (shop / "b.csv").write_text("\n".join(["image,title", *lines[40:]]))
    for source, num_new in ((labels, 2), (shop, 10)):
        out = str(tmp_path / "out" / source.name)
        with pytest.raises(ValueError, match="--append"):
            prepare(str(source), out, configured())
        added = append(str(source), out, configured())
        assert (added.read, added.accepted, added.newly_accepted) == (40 + num_new, 40 + num_new, num_new)
        assert append(str(source), out, configured()).already_prepared
        assert prepare(str(source), out, configured()).already_prepared
    assert texts(str(tmp_path / "out" / "labels"))["cat/new.png"] == "a new cat"
    (labels / "cat" / "1.txt").write_text("another caption")
    with pytest.raises(ValueError, match=r"cat/1.txt of .* changed"):
        append(str(labels), str(tmp_path / "out" / "labels"), configured())
