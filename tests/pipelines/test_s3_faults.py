"""`prepare` and training in S3 while its server fails: the result is right, or there is a clear line and no half set.

Each test asserts that its fault was really met.
"""

import io
import itertools
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.contact import check_writable
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.s3.client import client
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import read_metrics
from tests.data.pictures import encoded, noise
from tests.object_store import SERVICES, ObjectStore

pytestmark = pytest.mark.cluster

CONFIG = resolve_prepare_config(PrepareConfig(vocabulary_size=200, max_rejected_ratio=0.2), 16)
FAILING = tuple(service for service in SERVICES if service != "account")
"""without its accounts Swift says that there is no such bucket, as if it were so for good"""
NUM_STEPS = 150
EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "pretrain.py"


@pytest.fixture(scope="module")
def source(object_store: ObjectStore) -> str:
    """300 records in three files, a tenth of them damaged."""
    bucket = f"s3://source-{secrets.token_hex(6)}"
    client().create_bucket(Bucket=bucket.removeprefix("s3://"))
    for number in range(3):
        rows = range(100 * number, 100 * (number + 1))
        images = [encoded(noise(20, 20, row)) if row % 10 else b"" for row in rows]
        table = pa.table({"id": rows, "image": images, "text": [f"shirt {row}" for row in rows]})
        sink = io.BytesIO()
        pq.write_table(table, sink)
        storage.write_bytes_atomically(f"{bucket}/in/{number}.parquet", sink.getvalue())
    return f"{bucket}/in"


@pytest.fixture(scope="module")
def undisturbed(source: str, local_ray: None) -> dict[str, str]:
    """The files that `prepare` makes of it, and their sha256."""
    out = f"{storage.parent(source)}/undisturbed"
    prepare(source, out, CONFIG)
    return contents(out)


def contents(out: str) -> dict[str, str]:
    return {file.relative: storage.sha256(file.path) for file in storage.list_files(out)}


@contextmanager
def outage(store: ObjectStore, service: str, after_s: float, seconds: float) -> Iterator[threading.Event]:
    """One server dies after a while, if the block lasts so long, and is back later; tells whether it died."""
    died, is_over = threading.Event(), threading.Event()

    def die_and_come_back() -> None:
        if not is_over.wait(after_s):
            store.kill(service)
            died.set()
            threading.Event().wait(seconds)
            store.revive(service)

    thread = threading.Thread(target=die_and_come_back)
    thread.start()
    try:
        yield died
    finally:
        is_over.set()
        thread.join()


def once(act: Callable[[], None]) -> Callable[[int, int], None]:
    """Told of the progress of `prepare`: acts at the first that is made, in the middle of the work."""
    done = threading.Event()

    def on_progress(num_done: int, num_records: int) -> None:
        if num_done and not done.is_set():
            done.set()
            act()

    return on_progress


def test_a_server_that_is_dead_for_20_s_changes_nothing(
    bucket: str, source: str, object_store: ObjectStore, undisturbed: dict[str, str]
) -> None:
    is_back = threading.Event()

    def come_back() -> None:
        is_back.set()
        object_store.revive("object")

    restart = threading.Timer(20, come_back)

    def die() -> None:
        object_store.kill("object")
        with pytest.raises(storage.StorageError):
            check_writable(f"{bucket}/disturbed")
        restart.start()

    prepare(source, f"{bucket}/disturbed", CONFIG, on_progress=once(die))
    # The end was not reached before the server was back.
    assert is_back.is_set()
    restart.join()
    assert contents(f"{bucket}/disturbed") == undisturbed
    PreparedSet.open(f"{bucket}/disturbed").verify()


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(6))
def test_a_server_that_dies_at_any_moment_changes_nothing(
    bucket: str, source: str, object_store: ObjectStore, undisturbed: dict[str, str], seed: int
) -> None:
    service, latest_s = FAILING[seed % len(FAILING)], 2.0
    draw = np.random.default_rng(seed)
    for attempt in itertools.count():
        out = f"{bucket}/disturbed-{attempt}"
        with outage(object_store, service, draw.random() * latest_s, 20) as died:
            prepare(source, out, CONFIG)
            was_met = died.is_set()
        assert contents(out) == undisturbed
        if was_met:
            return
        latest_s /= 2


@pytest.mark.parametrize(
    ("service", "seconds"),
    [
        ("object", 4),
        *(pytest.param(service, 35, marks=pytest.mark.torture) for service in FAILING),
    ],
)
def test_a_server_that_stands_still_changes_nothing(
    bucket: str, source: str, object_store: ObjectStore, undisturbed: dict[str, str], service: str, seconds: float
) -> None:
    stopped, moved = threading.Event(), threading.Event()

    def stand_still() -> None:
        with object_store.suspended(service):
            stopped.set()
            moved.wait(seconds)
        moved.set()

    still = threading.Thread(target=stand_still)

    def begin() -> None:
        still.start()
        assert stopped.wait(10)

    prepare(source, f"{bucket}/disturbed", CONFIG, on_progress=once(begin))
    # The end was not reached before the server moved again.
    assert stopped.is_set() and moved.is_set()
    still.join()
    assert contents(f"{bucket}/disturbed") == undisturbed


PREPARE = """
import ray, sys
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.pipelines.prepare import prepare
from tests.pipelines.test_s3_faults import CONFIG, once
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

def pause():
    print("in the middle", flush=True)
    sys.stdin.readline()

with plain_errors():
    prepare(sys.argv[1], sys.argv[2], CONFIG, on_progress=once(pause))
"""


def test_a_full_disk_is_a_clear_line_and_no_half_set(bucket: str, source: str, object_store: ObjectStore) -> None:
    out = f"{bucket}/out"
    running = subprocess.Popen(
        [sys.executable, "-c", PREPARE, source, out],
        env=os.environ | {"MLIM_RAY_S3_RETRY_S": "3", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None and running.stdout.readline() == "in the middle\n"
    with object_store.full():
        told = running.communicate("\n", timeout=120)[1]
    assert running.returncode == 2, told
    line = told.strip().splitlines()[-1]
    assert line.startswith(f"cannot write {out}/") and "S3 answered 503" in line and "asked again for 3 s" in line, told
    assert not storage.exists(f"{out}/manifest.json")
    with pytest.raises(ValueError, match="out"):
        PreparedSet.open(out)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(3))
def test_a_run_outlives_a_server_that_is_dead_for_20_s(
    bucket: str, object_store: ObjectStore, tmp_path: Path, seed: int
) -> None:
    flags = f"--data generated:400 --steps {NUM_STEPS} --seed {seed} --train.checkpoint-every-steps 5 --no-dashboard"
    command = [sys.executable, str(EXPERIMENT), *flags.split(), "--probe.num-records", "16"]
    command += ["--out", f"{bucket}/runs/one", "--feed.cache-folder", str(tmp_path)]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    checkpoints = CheckpointStore(f"{bucket}/runs/one/checkpoints")
    while not checkpoints.steps():
        assert running.poll() is None
    draw = np.random.default_rng(seed)
    for _ in range(2):
        with outage(object_store, "object", draw.random() * 2, 20) as died:
            assert died.wait(60) and running.poll() is None
    assert running.communicate(timeout=300)[1] is not None and running.returncode == 0
    assert checkpoints.steps()[-1] == NUM_STEPS and read_metrics(f"{bucket}/runs/one")[-1]["step"] == NUM_STEPS
