"""Sources in S3, each way of reading on a real server."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.s3.client import client
from mlim_ray.data.sources import Source, open_source, resolve_prepare_config
from mlim_ray.pipelines.prepare import prepare
from tests.data.pictures import encoded, noise
from tests.data.source_forms import FORMS, some_items
from tests.object_store import ObjectStore

pytestmark = pytest.mark.cluster

PICTURE = encoded(noise(20, 20))


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStore) -> str:
    import s3fs

    s3fs.S3FileSystem().mkdir("sources")
    return "s3://sources"


def upload(folder: Path, target: str) -> str:
    for file in storage.list_files(str(folder)):
        storage.write_bytes_atomically(storage.join(target, file.relative), storage.read_bytes(file.path))
    return target


def opened(path: str, **knobs: Any) -> tuple[Source, PrepareConfig]:
    config = resolve_prepare_config(PrepareConfig(**{"vocabulary_size": 200, **knobs}), 16)
    return open_source(path, config), config


def outcome(source: Source, config: PrepareConfig) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Accepted and rejected records, as far as the place of the source does not show in them."""
    records = [record for part in source.slices() for batch in source.read(part) for record in batch]
    cleaned = clean(records, CleaningRules.of(config, source.columns.split is not None))
    accepted = [(r.source, r.row, r.key, r.text, r.label, r.group, r.split, r.image) for r in cleaned.accepted]
    return accepted, [(r.source, r.row, r.reason, r.detail) for r in cleaned.rejected]


@pytest.mark.parametrize("form", ["parquet with paths", "tsv.gz", "jsonl", "webdataset", "tar.gz", "folder per label"])
def test_a_source_in_s3_gives_the_same_records_as_on_disk(form: str, bucket: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    path = write(tmp_path, some_items(40))
    local, config = opened(str(path), **knobs)
    target = upload(tmp_path, storage.join(bucket, form.replace(" ", "-")))
    place = storage.join(target, *path.relative_to(tmp_path).parts)
    remote, _ = opened(place, **knobs)
    assert remote.format == local.format and remote.columns == local.columns
    found = outcome(remote, config)
    assert len(found[0]) == 40 and found == outcome(local, config)
    assert [entry[:2] for entry in remote.identity] == [entry[:2] for entry in local.identity]
    before = remote.identity
    changed = max(storage.list_files(target), key=lambda file: file.relative.endswith((".png", ".tar", ".tar.gz")))
    storage.write_bytes_atomically(changed.path, storage.read_bytes(changed.path) + b"\0" * 512)
    assert opened(place, **knobs)[0].identity != before


def test_a_lance_dataset_in_s3_gives_the_same_records_as_on_disk(
    bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{"image": item.picture, **item.fields()} for item in some_items(40)]
    place = tmp_path / "items.lance"
    lance.write_dataset(pa.Table.from_pylist(rows), place, max_rows_per_file=15).delete("id = 'k7'")
    local, config = opened(str(place))
    remote, _ = opened(upload(place, storage.join(bucket, "lance", "items.lance")))
    assert remote.format == "Lance" and remote.columns == local.columns
    found = outcome(remote, config)
    assert len(found[0]) == 39 and found == outcome(local, config)
    assert [entry[:2] for entry in remote.identity] == [entry[:2] for entry in local.identity]
    for secret in (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]):
        assert secret.encode() not in pickle.dumps(remote)
        assert secret not in "".join(capfd.readouterr())


def test_a_lance_dataset_whose_server_is_gone_is_not_called_damaged(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": item.picture, **item.fields()} for item in some_items(4)]
    lance.write_dataset(pa.Table.from_pylist(rows), tmp_path / "items.lance")
    source, _ = opened(upload(tmp_path / "items.lance", storage.join(bucket, "lance", "gone.lance")))
    monkeypatch.setenv("MLIM_RAY_S3_RETRY_S", "1")
    monkeypatch.setattr(type(client()), "endpoint", "http://somebody:password@127.0.0.1:9")
    with pytest.raises(storage.StorageError, match=r"cannot read .*gone.lance: .* S3 error") as raised:
        list(source.read(source.slices()[0]))
    assert "password" not in str(raised.value)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("form", ["jsonl", "webdataset", "folder per label"])
def test_a_set_is_prepared_from_s3(form: str, bucket: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in", some_items(60))
    target = upload(path, storage.join(bucket, "in", form.replace(" ", "-")))
    _, config = opened(target, **knobs)
    done = prepare(target, storage.join(bucket, "out", form.replace(" ", "-")), config)
    assert (done.read, done.accepted) == (60, 60)
    same = prepare(str(path), str(tmp_path / "out"), config)
    assert PreparedSet.open(done.out).read("train").equals(PreparedSet.open(same.out).read("train"))
    assert prepare(target, done.out, config).already_prepared


def test_whole_s3_paths_are_taken_below_their_root_only(bucket: str) -> None:
    root = storage.join(bucket, "whole")
    for name in ("in/a.png", "in/b//odd name+.png", "secret.png", "in-side/a.png"):
        storage.write_bytes_atomically(storage.join(root, name), PICTURE)
    storage.write_bytes_atomically(storage.join(root, "in", "empty.png"), b"")
    expected = {
        f"{root}/in/a.png": None,
        "a.png": None,
        "./x/../a.png": None,
        f"{root}/in/b//odd name+.png": None,
        f"{root}/in/none.png": "missing_picture",
        "empty.png": "missing_picture",
        f"{root}/secret.png": "path_outside_folder",
        f"{root}/in/../secret.png": "path_outside_folder",
        f"{root}/in-side/a.png": "path_outside_folder",
        "s3://other/in/a.png": "path_outside_folder",
        "../secret.png": "path_outside_folder",
        "/in/a.png": "path_outside_folder",
        "https://example.org/a.png": "path_outside_folder",
    }
    lines = [json.dumps({"image": path, "title": f"item {i}"}) for i, path in enumerate(expected)]
    storage.write_bytes_atomically(storage.join(root, "in", "items.jsonl"), "\n".join(lines).encode())
    storage.write_bytes_atomically(storage.join(root, "tables", "items.jsonl"), "\n".join(lines).encode())
    for place, knobs in (("in", {}), ("in/items.jsonl", {}), ("tables", {"image_folder": f"{root}/in/"})):
        accepted, rejected = outcome(*opened(storage.join(root, place), **knobs))
        reasons = {row: reason.value for _, row, reason, _ in rejected}
        assert [reasons.get(row) for row in range(len(expected))] == list(expected.values()), place
        assert len(accepted) == 4


def test_a_local_table_may_name_pictures_in_s3(bucket: str, tmp_path: Path) -> None:
    root = storage.join(bucket, "photos")
    storage.write_bytes_atomically(storage.join(root, "a.png"), PICTURE)
    pq.write_table(pa.table({"image": [f"{root}/a.png", "a.png"], "title": ["one", "two"]}), tmp_path / "a.parquet")
    accepted, rejected = outcome(*opened(str(tmp_path), image_folder=root))
    assert len(accepted) == 2 and rejected == []
    _, rejected = outcome(*opened(str(tmp_path)))
    assert [reason.value for _, _, reason, _ in rejected] == ["path_outside_folder", "missing_picture"]


def test_walking_a_bucket_finds_what_listing_finds_in_the_same_order(bucket: str) -> None:
    root = storage.join(bucket, "walk")
    for name in ("b.txt", "a/x.txt", "a-b/x.txt", "a.txt", "a/c/y.txt", "B.txt", "caf\u00e9", *map(str, range(60))):
        storage.write_bytes_atomically(storage.join(root, name), name.encode())
    listed = storage.list_files(root)
    assert len(listed) == 67 and list(storage.walk_files(root)) == listed
    assert list(storage.walk_files(listed[0].path)) == storage.list_files(listed[0].path)
    with pytest.raises(storage.MissingPathError):
        next(storage.walk_files(storage.join(bucket, "absent")))
