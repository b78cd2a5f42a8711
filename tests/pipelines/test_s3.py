"""`prepare` and storage against a real S3 server."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.inspection import inspect
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import read_metrics
from tests.data.pictures import encoded, noise
from tests.object_store import ObjectStore

pytestmark = pytest.mark.cluster

CONFIG = resolve_prepare_config(PrepareConfig(vocabulary_size=200, max_rejected_ratio=0.2), 16)


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStore) -> str:
    import s3fs

    s3fs.S3FileSystem().mkdir("records")
    return "s3://records"


def upload(folder: Path, target: str) -> None:
    for file in storage.list_files(str(folder)):
        storage.write_bytes_atomically(storage.join(target, file.relative), storage.read_bytes(file.path))


def test_storage_does_the_same_as_on_disk(bucket: str) -> None:
    folder = storage.join(bucket, "storage")
    path = storage.join(folder, "a", "b.bin")
    assert not storage.exists(path) and storage.list_names(folder) == []
    storage.write_bytes_atomically(path, b"old")
    before = storage.list_files(folder)
    storage.write_bytes_atomically(path, memoryview(b"new content"))
    assert storage.list_files(folder) != before
    assert [(file.relative, file.num_bytes) for file in storage.list_files(folder)] == [("a/b.bin", 11)]
    assert storage.list_files(path)[0].relative == "b.bin"
    assert (storage.read_bytes(path), storage.read_bytes(path, 3)) == (b"new content", b"new")
    assert storage.open_read(path).read() == b"new content"
    assert storage.sha256(path) == storage.sha256_of(b"new content")
    assert storage.list_names(folder) == ["a"] and storage.is_folder(storage.join(folder, "a"))
    storage.remove(path)
    storage.remove(path)
    storage.write_bytes_atomically(path, b"x")
    storage.remove_tree(folder)
    assert not storage.exists(path)
    with pytest.raises(storage.MissingPathError, match=path):
        storage.read_bytes(path)


@pytest.mark.usefixtures("local_ray")
def test_from_s3_to_s3_gives_the_same_set_as_on_disk(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    images = [encoded(noise(20, 20, seed)) if seed % 10 else b"" for seed in range(300)]
    table = pa.table({"id": range(300), "image": images, "text": [f"shirt {i}" for i in range(300)]})
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=100)
    upload(tmp_path / "in", storage.join(bucket, "in"))
    local = prepare(str(tmp_path / "in"), str(tmp_path / "out"), CONFIG)
    out = storage.join(bucket, "out")
    remote = prepare(storage.join(bucket, "in"), out, CONFIG)
    assert (remote.read, remote.accepted, remote.rejected) == (300, 270, 30)
    one, two = PreparedSet.open(local.out), PreparedSet.open(out)
    two.verify()
    assert two.manifest.splits == one.manifest.splits and two.read("train").equals(one.read("train"))
    assert two.tokenizer().files() == one.tokenizer().files()
    names = {file.relative.split("/")[0] for file in storage.list_files(out)}
    assert names == {"manifest.json", "shards", "tokenizer", "quarantine"}
    assert prepare(storage.join(bucket, "in"), out, CONFIG).already_prepared


@pytest.mark.usefixtures("object_store")
def test_a_table_with_pictures_in_s3(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(encoded(noise(20, 20)))
    (tmp_path / "items.csv").write_text("image,title\np/a.png,one\np/none.png,two\n../../x.png,three\n")
    upload(tmp_path, storage.join(bucket, "table"))
    found = inspect(storage.join(bucket, "table"), CONFIG)
    assert found.num_accepted == 1
    assert found.reasons == {"missing_picture": 1, "path_outside_folder": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "a-wrong-secret"}, "s3://records/in"),
        ({"AWS_ACCESS_KEY_ID": "acct:nobody"}, "s3://records/in"),
        ({"bucket": "nosuchbucket"}, "s3://nosuchbucket/in does not exist"),
    ],
)
def test_wrong_credentials_and_buckets_fail_soon_and_keep_secrets(
    bucket: str, change: dict[str, str], message: str
) -> None:
    change = dict(change)
    source = f"s3://{change.pop('bucket', 'records')}/in"
    program = (
        "from mlim_ray.config.prepare import PrepareConfig;"
        "from mlim_ray.data.sources import open_source, resolve_prepare_config;"
        f"open_source({source!r}, resolve_prepare_config(PrepareConfig(), 16))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | change, capture_output=True, text=True, timeout=60
    )
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and message in last and "Error: " in last
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in result.stderr and "a-wrong-secret" not in result.stderr


def test_a_run_in_a_bucket_keeps_the_contract_of_the_run_folder(bucket: str, tmp_path: Path) -> None:
    out = storage.join(bucket, "runs", "first")
    experiment = Path(__file__).resolve().parents[2] / "experiments" / "pretrain.py"
    flags = "--data generated:400 --steps 12 --train.checkpoint-every-steps 5 --train.log-every-steps 3 --no-dashboard"
    command = [sys.executable, str(experiment), *flags.split(), "--probe.num-records", "16", "--out", out]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [line["step"] for line in read_metrics(out)] == [3, 6, 9, 12]
    assert CheckpointStore(storage.join(out, "checkpoints")).steps() == [10, 12]
    for name in ("config.yaml", "environment.json", "evaluation.json", "report.html", "model/model.safetensors"):
        assert storage.exists(storage.join(out, name)), name
    assert not storage.exists(storage.join(out, "lease.json"))
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "--resume" in again.stderr and "--overwrite" in again.stderr
