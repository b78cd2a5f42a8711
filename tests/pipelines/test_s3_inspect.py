"""`inspect` against a real S3 server: the same facts as on disk, and no more fetched than is looked at."""

import dataclasses
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.command_line.main import main
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import parquet, storage
from mlim_ray.data.inspection import Inspection, inspect
from mlim_ray.data.sources import resolve_prepare_config
from tests.data.pictures import encoded, noise
from tests.object_store import ObjectStore

pytestmark = pytest.mark.cluster

CONFIG = resolve_prepare_config(PrepareConfig(), 16)


class Counted(io.FileIO):
    """A file that counts what is read from it."""

    num_bytes = 0

    def readinto(self, buffer: memoryview) -> int:
        done = super().readinto(buffer)
        self.num_bytes += done
        return done

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.num_bytes += len(data)
        return data


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStore) -> str:
    import s3fs

    s3fs.S3FileSystem().mkdir("inspected")
    return "s3://inspected"


def upload(path: Path, target: str) -> str:
    storage.write_bytes_atomically(storage.join(target, path.name), path.read_bytes())
    return target


def facts(found: Inspection) -> dict[str, object]:
    told = dataclasses.asdict(found)
    return {name: value for name, value in told.items() if name not in ("source", "estimate", "hints", "num_places")}


@pytest.mark.parametrize("largest_group", [1, 64_000_000])
def test_a_source_in_s3_is_inspected_as_on_disk(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest_group: int
) -> None:
    monkeypatch.setattr(parquet, "_LARGE_GROUP_BYTES", largest_group)
    images = [encoded(noise(20, 20, seed)) if seed % 10 else b"" for seed in range(300)]
    table = pa.table({"id": range(300), "image": images, "text": [f"shirt {i}" for i in range(300)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    source = upload(tmp_path / "a.parquet", storage.join(bucket, f"in-{largest_group}"))
    here, there = inspect(str(tmp_path), CONFIG, num_examples=9), inspect(source, CONFIG, num_examples=9)
    assert facts(here) == facts(there) and there.reasons == {"missing_picture": 30}


def test_of_a_large_row_group_only_the_beginning_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_LARGE_GROUP_BYTES", 1)
    images = [encoded(noise(120, 120)) + number.to_bytes(8, "big") for number in range(900)]
    columns = {"image": images, "text": ["t"] * 900}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", use_dictionary=False, write_batch_size=32)
    file = Counted(tmp_path / "a.parquet")
    batch = next(parquet._open_remote(file).iter_batches(10, columns=["image"], use_threads=False))
    assert batch.column(0).to_pylist() == images[:10]
    assert file.num_bytes < 1.5 * parquet._BUFFER_BYTES < (tmp_path / "a.parquet").stat().st_size / 2


def test_a_page_is_written_to_s3(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = storage.join(bucket, "pages", "x.html")
    for number in (20, 21):
        main(["inspect", f"generated:{number}", "--html", page])
        assert f"page      {page}" in capsys.readouterr().out
        assert storage.read_bytes(page).decode().count("<figure>") == number
    with pytest.raises(SystemExit):
        main(["inspect", "generated:20", "--html", storage.join(bucket, "pages") + "/x.txt"])
