"""Storage in S3, against a real server: the same contract as on disk, nothing half-written, nothing lost on the way."""

import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from mlim_ray.data import storage
from mlim_ray.data.parquet import open_parquet
from mlim_ray.data.s3.client import client
from mlim_ray.pipelines.ray_files import ray_storage
from tests.faulty_gateway import Fault, FaultyGateway
from tests.object_store import ObjectStore

pytestmark = pytest.mark.cluster

LARGE = np.random.default_rng(0).bytes(50 << 20)
"""written in parts"""


def unfinished(bucket: str) -> int:
    return len(client().list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads", []))


def test_storage_does_the_same_as_on_disk(bucket: str) -> None:
    folder = storage.join(bucket, "storage")
    path = storage.join(folder, "a", "b.bin")
    assert not storage.exists(path) and storage.list_names(folder) == []
    storage.write_bytes_atomically(path, b"old")
    before = storage.list_files(folder)
    storage.write_bytes_atomically(path, memoryview(b"new content"))
    assert storage.list_files(folder) != before
    assert [(file.path, file.relative, file.num_bytes) for file in storage.list_files(folder)] == [
        (path, "a/b.bin", 11)
    ]
    assert (storage.list_files(path)[0].path, storage.list_files(path)[0].relative) == (path, "b.bin")
    assert (storage.read_bytes(path), storage.read_bytes(path, 3)) == (b"new content", b"new")
    assert (storage.read_range(path, 4, 100), storage.read_range(path, 0, 3)) == (b"content", b"new")
    assert (storage.read_range(path, 11, 5), storage.read_range(path, 4, 0)) == (b"", b"")
    assert storage.open_read(path).read() == b"new content"
    assert (storage.file_bytes(path), storage.file_bytes(folder)) == (11, None)
    assert storage.sha256(path) == storage.sha256_of(b"new content")
    assert storage.list_names(folder) == ["a"] and storage.is_folder(storage.join(folder, "a"))
    storage.remove(path)
    storage.remove(path)
    storage.write_bytes_atomically(path, b"")
    assert (storage.read_bytes(path), storage.read_bytes(path, 3), storage.file_bytes(path)) == (b"", b"", 0)
    storage.remove_tree(storage.join(bucket, "stor"))
    storage.remove_tree(folder)
    assert not storage.exists(path) and not storage.exists(folder)
    for missing in (storage.read_bytes, storage.open_read, storage.list_files, storage.sha256):
        with pytest.raises(storage.MissingPathError, match=path):
            missing(path)


def test_listings_are_paged_sorted_and_exact_for_any_name(bucket: str) -> None:
    """The server at hand gives 50 keys at a time."""
    names = [f"many/{number:04d}" for number in range(120)]
    names += ["a b/c+d%20.jpg", "a/b", "a-b", "a.b", "\u00e9t\u00e9/\u00fc.png", "q?x=1&y#z", "two//slashes", "x'\"<&>"]
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda name: storage.write_bytes_atomically(f"{bucket}/in/{name}", name.encode()), names):
            pass
    files = storage.list_files(f"{bucket}/in")
    assert [file.relative for file in files] == sorted(names)
    assert [storage.read_bytes(file.path).decode() for file in files if "many" not in file.path] == [
        name for name in sorted(names) if "many" not in name
    ]
    assert len(storage.list_names(f"{bucket}/in/many")) == 120
    storage.remove_tree(f"{bucket}/in")
    assert storage.list_names(bucket) == []


def test_any_part_of_an_open_file_is_right(bucket: str) -> None:
    path = f"{bucket}/large"
    storage.write_bytes_atomically(path, memoryview(LARGE))
    draw = random.Random(1)
    with storage.open_read(path) as file:
        for _ in range(60):
            start, num_bytes = draw.randrange(len(LARGE)), draw.choice([1, 100, 70_000, 300_000, 3_000_000])
            file.seek(start)
            assert file.read(num_bytes) == LARGE[start : start + num_bytes]
        file.seek(-5, os.SEEK_END)
        assert (file.read(), file.read(1), file.tell()) == (LARGE[-5:], b"", len(LARGE))
    assert (
        storage.read_bytes(path) == LARGE and storage.read_range(path, 12_345, 20 << 20) == LARGE[12_345:][: 20 << 20]
    )
    storage.write_bytes_atomically(f"{bucket}/lines", b"first\nsecond\n\nlast")
    with storage.open_read(f"{bucket}/lines") as file:
        assert list(io.TextIOWrapper(file)) == ["first\n", "second\n", "\n", "last"]


def test_a_file_that_is_replaced_while_it_is_read_is_no_mixture(bucket: str) -> None:
    path = f"{bucket}/file"
    storage.write_bytes_atomically(path, LARGE[: 20 << 20])
    with storage.open_read(path) as file:
        assert file.read(10) == LARGE[:10]
        storage.write_bytes_atomically(path, LARGE[-(20 << 20) :])
        file.seek(15 << 20)
        with pytest.raises(storage.StorageError, match=f"cannot read {path}: it was changed while it was read"):
            file.read(10)


def test_arrow_reads_through_the_same_patience(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": range(200_000), "x": np.random.default_rng(0).random(200_000)}), sink)
    faults: list[Fault | None] = ["503", "reset", "cut", "500"]
    with FaultyGateway(object_store.port, lambda method, path: faults.pop() if faults else None) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        storage.write_bytes_atomically(f"{bucket}/t.parquet", sink.getvalue())
        file = open_parquet(f"{bucket}/t.parquet")
        faults += ["500", "cut", "reset", "503"]
        assert file.read(columns=["n"])["n"].to_pylist() == list(range(200_000))
        assert len(gateway.faults) == 8
        monkeypatch.setenv("MLIM_RAY_S3_RETRY_S", "0.5")
        gateway.choose = lambda method, path: "503"
        with pytest.raises(storage.StorageError, match=f"cannot read {bucket}/t.parquet: S3 answered 503 SlowDown"):
            file.read(columns=["x"])


def test_every_object_is_right_however_often_requests_fail(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request in five fails: 503, 500, a reset, half an answer, a changed body, an answer that is lost."""
    draw, kinds = random.Random(0), ("503", "500", "reset", "cut", "garbled", "lost")

    def choose(method: str, path: str) -> Fault | None:
        return draw.choice(kinds) if draw.random() < 0.2 else None  # type: ignore[return-value]

    contents = {f"small/{number:03d}": LARGE[number * 1000 :][: number * 700] for number in range(60)}
    contents |= {f"large/{number}": LARGE[number * 1000 :][: 33 << 20] for number in range(1)}
    with FaultyGateway(object_store.port, choose) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: storage.write_bytes_atomically(f"{bucket}/{name}", contents[name]), contents))
            read = dict(
                zip(contents, pool.map(lambda name: storage.read_bytes(f"{bucket}/{name}"), contents), strict=True)
            )
        listed = [file.relative for file in storage.list_files(bucket)]
        assert set(gateway.faults) == set(kinds) and len(gateway.faults) > 15
        storage.remove_tree(f"{bucket}/small")
    assert read == contents and listed == sorted(contents)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{object_store.port}")
    monkeypatch.setattr("mlim_ray.data.s3.client._clients", {})
    assert storage.list_names(bucket) == ["large"]
    assert storage.sha256(f"{bucket}/large/0") == storage.sha256_of(contents["large/0"])
    # An upload whose first answer was lost is dropped by the next janitor.
    storage.abort_unfinished_uploads(bucket)
    assert unfinished(bucket) == 0


def test_an_upload_that_fails_leaves_nothing(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyGateway(object_store.port, lambda method, path: "403" if "partNumber=3" in path else None) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        storage.write_bytes_atomically(f"{bucket}/file", b"old")
        with pytest.raises(storage.StorageError, match=f"cannot write {bucket}/file: access denied"):
            storage.write_bytes_atomically(f"{bucket}/file", LARGE)
        assert gateway.faults == ["403"]
        assert storage.read_bytes(f"{bucket}/file") == b"old" and unfinished(bucket) == 0


def test_an_upload_whose_last_answer_is_lost_is_not_taken_for_a_failed_one(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers forget an upload once it has ended."""
    faults: list[Fault] = ["404", "lost"]

    def choose(method: str, path: str) -> Fault | None:
        return faults.pop() if faults and method == "POST" and "uploadId=" in path else None

    with FaultyGateway(object_store.port, choose) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        storage.write_bytes_atomically(f"{bucket}/file", LARGE)
        assert gateway.faults == ["lost", "404"]
        assert storage.sha256(f"{bucket}/file") == storage.sha256_of(LARGE) and unfinished(bucket) == 0


def test_an_upload_whose_writer_is_killed_is_never_seen_and_can_be_dropped(
    bucket: str, object_store: ObjectStore
) -> None:
    asked = threading.Event()

    def choose(method: str, path: str) -> Fault | None:
        if "partNumber=4" in path:
            asked.set()
            return "503"
        return None

    program = f"from mlim_ray.data import storage; storage.write_bytes_atomically('{bucket}/in/file', bytes(200 << 20))"
    with FaultyGateway(object_store.port, choose) as gateway:
        environment = os.environ | {"AWS_ENDPOINT_URL": gateway.url}
        writer = subprocess.Popen([sys.executable, "-c", program], env=environment)
        assert asked.wait(60)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    assert not storage.exists(f"{bucket}/in/file") and storage.list_names(bucket) == [] and unfinished(bucket) == 1
    assert storage.abort_unfinished_uploads(f"{bucket}/in", older_than_s=3600) == 0
    assert storage.abort_unfinished_uploads(f"{bucket}/i") == 0
    assert storage.abort_unfinished_uploads(f"{bucket}/in") == 1
    assert unfinished(bucket) == 0 and storage.abort_unfinished_uploads(f"{bucket}/in") == 0


def test_threads_may_write_one_key_and_a_forked_child_may_read_it(bucket: str) -> None:
    path, contents = f"{bucket}/race", {bytes([number]) * (1 << 18) for number in range(16)}
    with ThreadPoolExecutor(32) as pool:
        writes = [pool.submit(storage.write_bytes_atomically, path, content) for content in contents]
        reads = [pool.submit(storage.read_bytes, path) for _ in range(64) if storage.exists(path)]
    assert all(write.result() is None for write in writes) and {read.result() for read in reads} <= contents
    with multiprocessing.get_context("fork").Pool(2) as children:
        assert children.map(storage.read_bytes, [path] * 4) == [storage.read_bytes(path)] * 4


def test_encryption_is_asked_for_with_every_object(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server at hand has none, and says so: it was asked."""
    with FaultyGateway(object_store.port) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        monkeypatch.setenv("MLIM_RAY_S3_SSE", "aws:kms")
        monkeypatch.setenv("MLIM_RAY_S3_SSE_KMS_KEY_ID", "our-key")
        for content in (b"small", LARGE):
            with pytest.raises(storage.StorageError, match=f"cannot write {bucket}/x: .* cannot do that .*encryption"):
                storage.write_bytes_atomically(f"{bucket}/x", content)
        asked = [(request.method, request.path.partition("?")[2], request.headers) for request in gateway.requests]
    assert [(method, query) for method, query, _ in asked] == [("PUT", ""), ("POST", "uploads")]
    for _, _, headers in asked:
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "our-key"


def test_what_is_sent_carries_its_md5_and_names_the_bucket_in_the_path(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyGateway(object_store.port) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", gateway.url)
        storage.write_bytes_atomically(f"{bucket}/x", b"small")
        storage.write_bytes_atomically(f"{bucket}/y", LARGE)
        puts = [request for request in gateway.requests if request.method == "PUT"]
    assert len(puts) == 5 and all("Content-MD5" in request.headers for request in puts)
    assert all(request.path.startswith(f"/{bucket.removeprefix('s3://')}/") for request in gateway.requests)


PROGRAM = "import sys; from mlim_ray.data import storage; print(storage.read_bytes(sys.argv[1]).decode())"


def read_elsewhere(path: str, **changes: str) -> str:
    kept = {name: value for name, value in os.environ.items() if "ACCESS_KEY" not in name}
    command = [sys.executable, "-c", PROGRAM, path]
    return subprocess.run(command, env=kept | changes, capture_output=True, text=True, check=True).stdout.strip()


def test_credentials_come_from_a_profile(bucket: str, s3_settings: tuple[int, str, str], tmp_path: Path) -> None:
    port, access_key, secret_key = s3_settings
    storage.write_bytes_atomically(f"{bucket}/x", b"found")
    keys = f"aws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
    (tmp_path / "credentials").write_text(f"[shop]\n{keys}")
    (tmp_path / "config").write_text(f"[profile shop]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{port}\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
    files = {name: str(tmp_path / file) for name, file in files.items()}
    assert read_elsewhere(f"{bucket}/x", AWS_PROFILE="shop", AWS_ENDPOINT_URL="", **files) == "found"


def test_credentials_come_from_the_role_of_an_instance(bucket: str, s3_settings: tuple[int, str, str]) -> None:
    _, access_key, secret_key = s3_settings
    storage.write_bytes_atomically(f"{bucket}/x", b"found")
    role = {"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": access_key, "SecretAccessKey": secret_key}
    role |= {"Token": "a-token", "Expiration": "2099-01-01T00:00:00Z", "LastUpdated": "2020-01-01T00:00:00Z"}
    asked = []

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = {"api/token": "t", "security-credentials/": "shop", "security-credentials/shop": json.dumps(role)}
            found = next((text for path, text in answer.items() if self.path.endswith(path)), "")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found.encode())

        do_PUT = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        none = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}
        assert read_elsewhere(f"{bucket}/x", AWS_EC2_METADATA_SERVICE_ENDPOINT=url, **none) == "found"
        server.shutdown()
        thread.join()
    assert any(path.endswith("security-credentials/shop") for path in asked)


def test_ray_writes_through_the_same_storage(bucket: str, tmp_path: Path, object_store: ObjectStore) -> None:
    given = ray_storage(f"{bucket}/run/.ray")
    files, folder = given["storage_filesystem"], given["storage_path"]
    assert ray_storage(str(tmp_path)) == {"storage_path": str(tmp_path)}
    for name in ("a/one", "a/b/two", "three"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name)
    object_store.kill("object")
    # Within its second pyarrow itself would have given up.
    restart = threading.Timer(4, lambda: object_store.revive("object"))
    restart.start()
    pyarrow.fs.copy_files(str(tmp_path / "from"), f"{folder}/x", destination_filesystem=files)
    restart.join()
    pyarrow.fs.copy_files(f"{folder}/x", str(tmp_path / "back"), source_filesystem=files)
    assert {str(p.relative_to(tmp_path / "back")) for p in (tmp_path / "back").rglob("*") if p.is_file()} == {
        "a/one",
        "a/b/two",
        "three",
    }
    selector = pyarrow.fs.FileSelector(f"{folder}/x", recursive=False)
    assert {(info.base_name, info.type) for info in files.get_file_info(selector)} == {
        ("a", pyarrow.fs.FileType.Directory),
        ("three", pyarrow.fs.FileType.File),
    }
    assert files.get_file_info(f"{folder}/x/a").type == pyarrow.fs.FileType.Directory
    assert files.get_file_info(f"{folder}/x/a/one").size == 5
    assert files.get_file_info(f"{folder}/none").type == pyarrow.fs.FileType.NotFound
    with pytest.raises(FileNotFoundError):
        files.open_input_stream(f"{folder}/none")
    files.delete_dir(f"{folder}/x/a")
    assert storage.list_names(f"s3://{folder}/x") == ["three"]


@pytest.mark.parametrize("service", ["object", "proxy"])
def test_a_server_that_stands_still_for_a_while_is_waited_for(
    bucket: str, object_store: ObjectStore, service: str
) -> None:
    storage.write_bytes_atomically(f"{bucket}/x", b"before")
    with ThreadPoolExecutor(2) as pool:
        with object_store.suspended(service):
            read = pool.submit(storage.read_bytes, f"{bucket}/x")
            write = pool.submit(storage.write_bytes_atomically, f"{bucket}/y", b"during")
            assert not wait((read, write), timeout=3).done
        assert read.result() == b"before" and write.result() is None
    assert storage.read_bytes(f"{bucket}/y") == b"during"
