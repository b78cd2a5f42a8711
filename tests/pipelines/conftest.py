"""A small local Ray, and a real S3 server, for the tests of this folder."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from mlim_ray.data.s3.client import client
from tests.object_store import ObjectStore, free_ports, install
from tests.pipelines.faulty_runs import ACCOUNT, FLAGS, FaultyRun
from tests.pipelines.search_runs import SearchRun


@pytest.fixture(scope="session")
def s3_settings() -> Iterator[tuple[int, str, str]]:
    """Port, access key and secret of the S3 server to be; Ray's workers take them from the environment."""
    port, access_key, secret_key = free_ports(), f"acct:tester{secrets.token_hex(4)}", secrets.token_hex(16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield port, access_key, secret_key


@pytest.fixture(scope="session")
def local_ray(s3_settings: tuple[int, str, str]) -> Iterator[None]:
    # Never another Ray that happens to run on the machine.
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 1024 * 1024,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def object_store(
    s3_settings: tuple[int, str, str], pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStore]:
    """Swift, installed once into pytest's cache folder."""
    cache = pytestconfig.cache
    assert cache is not None
    try:
        python = install(cache.mkdir("swift"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Swift cannot be installed: {error.stderr.decode()[-200:]}")
    with ObjectStore(tmp_path_factory.mktemp("swift") / "store", python, *s3_settings) as store:
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore) -> str:
    """A new bucket, as an address."""
    name = f"test-{secrets.token_hex(6)}"
    client().create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that changes the environment of S3 gets a client made in it; the others keep theirs."""
    monkeypatch.setattr("mlim_ray.data.s3.client._clients", {})


@pytest.fixture(scope="session")
def fault_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all runs under faults are started from; they share the prepared set in it."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def undisturbed(fault_folder: Path) -> Iterator[FaultyRun]:
    """The run that nothing happens to, with two workers."""
    run = FaultyRun(fault_folder, "undisturbed", FLAGS)
    try:
        run.finish()
        yield run
    finally:
        run.end()


@pytest.fixture(scope="session")
def undisturbed_search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchRun]:
    """The search that nothing happens to, one trial at a time; it has ended."""
    folder = tmp_path_factory.mktemp("search")
    run = SearchRun(folder, str(folder / "undisturbed"))
    try:
        run.start().finish()
        yield run
    finally:
        run.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After the tests of faults: what was done to runs, and what each fault cost."""
    if ACCOUNT.rows:
        terminalreporter.section("faults")
        for line in ACCOUNT.table():
            terminalreporter.write_line(line)
