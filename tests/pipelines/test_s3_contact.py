"""The first contact with S3: what cannot work is told in one line, before anything is read, written or started."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mlim_ray.data import storage
from mlim_ray.data.contact import check_readable, check_writable
from tests.object_store import ObjectStore, free_ports

pytestmark = pytest.mark.cluster

CAUSES: dict[str, tuple[dict[str, str], str]] = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "a-wrong-secret"}, "the secret does not fit the access key"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "acct:nobody"}, "there is no such key"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
    "half of the credentials": ({"AWS_SECRET_ACCESS_KEY": ""}, "Partial credentials found"),
    "no such profile": ({"AWS_PROFILE": "nosuch"}, "profile (nosuch) could not be found"),
    "nothing listens": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{free}"}, "does not answer as S3 does (no connection)"),
    "no such host": ({"AWS_ENDPOINT_URL": "http://nosuchhost.invalid"}, "does not answer as S3 does (no connection)"),
    "no address": ({"AWS_ENDPOINT_URL": "htp:/x"}, "expected an address such as"),
}


def changed(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name, value in changes.items():
        if value:
            monkeypatch.setenv(name, value.format(free=free_ports()))
        else:
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("own_client")
@pytest.mark.parametrize("cause", CAUSES)
def test_the_line_names_the_path_the_cause_and_no_secret(
    bucket: str, cause: str, monkeypatch: pytest.MonkeyPatch, s3_settings: tuple[int, str, str]
) -> None:
    changes, said = CAUSES[cause]
    changed(monkeypatch, changes)
    for check in (check_readable, check_writable):
        with pytest.raises(ValueError) as refused:
            check(f"{bucket}/data")
        line = str(refused.value)
        assert said in line and "\n" not in line and len(line) < 400, line
        assert cause == "no address" or f"{bucket}/data" in line
        for secret in (*s3_settings[1:], "a-wrong-secret", "acct:nobody"):
            assert secret not in line


@pytest.mark.usefixtures("object_store")
def test_a_missing_bucket_is_named() -> None:
    for check in (check_readable, check_writable):
        with pytest.raises(storage.StorageError, match="nosuchbucket/data: there is no bucket nosuchbucket at http"):
            check("s3://nosuchbucket/data")


def test_what_can_work_leaves_no_trace(bucket: str, tmp_path: Path) -> None:
    check_readable(bucket, f"{bucket}/data", None, "generated:10", str(tmp_path / "absent"))
    check_writable(bucket, f"{bucket}/data", None, str(tmp_path / "absent"))
    assert storage.list_names(bucket) == []


@pytest.mark.usefixtures("own_client", "object_store")
def test_an_endpoint_that_takes_connections_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(storage.StorageError, match="cannot read s3://shop/data: .* answer"):
            check_readable("s3://shop/data")


def test_a_full_disk_is_no_place_to_write_to(bucket: str, object_store: ObjectStore) -> None:
    with object_store.full():
        check_readable(bucket)
        with pytest.raises(storage.StorageError, match=f"cannot write {bucket}/out: S3 answered 503"):
            check_writable(f"{bucket}/out")
    check_writable(f"{bucket}/out")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("-m mlim_ray.command_line.main inspect {bucket}/absent", "{bucket}/absent"),
        ("-m mlim_ray.command_line.main prepare generated:100 {bucket}/out", "{bucket}/out"),
        ("{experiments}/pretrain.py --data {bucket}/absent --steps 2", "{bucket}/absent"),
        ("{experiments}/pretrain.py --data generated:100 --steps 2 --out {bucket}/out", "{bucket}/out"),
        ("{experiments}/tune_mam.py --data generated:100 --trials 2 --out {bucket}/out --resume", "{bucket}/out"),
    ],
)
def test_every_command_fails_before_any_work(bucket: str, tmp_path: Path, command: str, path: str) -> None:
    places = {"bucket": bucket, "experiments": str(Path(__file__).resolve().parents[2] / "experiments")}
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": "a-wrong-secret", "RAY_TMPDIR": str(tmp_path / "ray")}
    ended = subprocess.run(
        [sys.executable, *command.format(**places).split()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.strip() == (
        f"cannot read {path.format(**places)}: the secret does not fit the access key, or there is no such key; "
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile"
    )
    assert ended.stdout == "" and list(tmp_path.iterdir()) == [] and storage.list_names(bucket) == []
