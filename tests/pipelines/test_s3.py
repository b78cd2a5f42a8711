"""`prepare` and `inspect` from S3 and to S3, against a real server."""

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
from tests.data.pictures import encoded, noise

pytestmark = pytest.mark.cluster

CONFIG = resolve_prepare_config(PrepareConfig(vocabulary_size=200, max_rejected_ratio=0.2), 16)


def upload(folder: Path, target: str) -> None:
    for file in storage.list_files(str(folder)):
        storage.write_bytes_atomically(storage.join(target, file.relative), storage.read_bytes(file.path))


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
    assert names == {"manifest.json", "shards", "tokenizer", "quarantine", "origin"}
    assert prepare(storage.join(bucket, "in"), out, CONFIG).already_prepared


def test_a_table_with_pictures_in_s3(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(encoded(noise(20, 20)))
    (tmp_path / "items.csv").write_text("image,title\np/a.png,one\np/none.png,two\n../../x.png,three\n")
    upload(tmp_path, storage.join(bucket, "table"))
    found = inspect(storage.join(bucket, "table"), CONFIG)
    assert found.num_accepted == 1
    assert found.reasons == {"missing_picture": 1, "path_outside_folder": 1}
