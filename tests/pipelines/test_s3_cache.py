"""Training from a set in S3: each shard is fetched once a node, and a server that is away stops nobody for long."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlim_ray.config import FeedConfig, MamConfig, TrainConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import row_groups, shard_cache, storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.shard_cache import ShardCache
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.pipelines import feed as feed_module
from mlim_ray.pipelines.feed import stream_batches
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.training.batch import Batch, Masking
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import read_metrics
from mlim_ray.training.stream import ShardReader, stream_order
from tests.faulty_gateway import Fault, FaultyGateway
from tests.object_store import ObjectStore
from tests.prepared_sets import source_records, write_prepared

pytestmark = [pytest.mark.cluster, pytest.mark.long]

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "pretrain.py"
MASKING = Masking(MamConfig(), seed=3, num_cells=4)
ROOM = 100_000_000
OUTAGE_S, NUM_STEPS, BUDGET_S = 20, 60, 300


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """35 row groups in four shards, on disk."""
    return write_prepared(tmp_path_factory.mktemp("local"), source_records(2_200))


@pytest.fixture
def remote(bucket: str, local: PreparedSet) -> str:
    """The same set in S3."""
    for file in storage.list_files(local.path):
        storage.write_bytes_atomically(f"{bucket}/set/{file.relative}", storage.read_bytes(file.path))
    return f"{bucket}/set"


@pytest.fixture
def gateway(
    object_store: ObjectStore, remote: str, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyGateway]:
    """What this process asks of S3 goes through it."""
    with FaultyGateway(object_store.port) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        yield gateway


def forget() -> None:
    """Know of shards and copies what a new process knows."""
    row_groups.open_shard.cache_clear()
    shard_cache._hashed.clear()
    shard_cache._damaged_there.clear()


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> None:
    forget()


def reader_of(prepared: PreparedSet, *, skips_damaged: bool = False) -> ShardReader:
    train, feed = TrainConfig(batch_size=50, seed=3), FeedConfig(num_lanes=6, window_groups=1)
    order = stream_order(prepared, train, feed)
    return ShardReader(prepared, order, MASKING, range(order.num_lanes), skips_damaged)


def read_epoch(reader: ShardReader, epoch: int) -> Batch:
    steps = range(epoch * reader.order.epoch_steps, (epoch + 1) * reader.order.epoch_steps)
    chunks = range(reader.chunk_of(steps.start), reader.chunk_of(steps.stop - 1) + 1)
    return reader.read_chunks(chunks, steps.start, steps.stop)[0]


def check_equal(one: Batch, other: Batch) -> None:
    for name, x, y in zip(Batch._fields, one, other, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


def joined(batches: list[Batch]) -> Batch:
    return Batch(*map(np.concatenate, zip(*batches, strict=True)))


def asked_for_shards(gateway: FaultyGateway) -> list[str]:
    return [request.method for request in gateway.requests if "/shards/" in request.path]


def test_each_shard_is_asked_for_once(remote: str, local: PreparedSet, gateway: FaultyGateway, tmp_path: Path) -> None:
    prepared = PreparedSet.open(remote).cached(ShardCache(str(tmp_path), ROOM))
    reader, expected = reader_of(prepared), reader_of(local)
    check_equal(read_epoch(reader, 0), read_epoch(expected, 0))
    assert asked_for_shards(gateway) == ["GET"] * len(prepared.manifest.splits["train"].shards)
    gateway.requests.clear()
    check_equal(read_epoch(reader, 1), read_epoch(expected, 1))
    # Another process of the node, or another run.
    forget()
    check_equal(read_epoch(reader, 2), read_epoch(expected, 2))
    assert gateway.requests == []


def test_what_the_cache_has_no_room_for_is_read_in_place(
    remote: str, local: PreparedSet, gateway: FaultyGateway, tmp_path: Path
) -> None:
    largest = max(shard.num_bytes for shard in local.manifest.splits["train"].shards)
    prepared = PreparedSet.open(remote).cached(ShardCache(str(tmp_path), largest))
    for epoch in range(2):
        check_equal(read_epoch(reader_of(prepared), epoch), read_epoch(reader_of(local), epoch))
    num_bytes = sum(file.num_bytes for file in storage.list_files(str(tmp_path)))
    assert 0 < num_bytes <= largest and len(asked_for_shards(gateway)) > 4


@pytest.mark.parametrize("cache_gib", [0.0, 0.1])
def test_what_is_changed_on_its_way_is_asked_for_again(
    remote: str, local: PreparedSet, gateway: FaultyGateway, tmp_path: Path, cache_gib: float
) -> None:
    feed = FeedConfig(cache_gib=cache_gib, cache_folder=str(tmp_path))
    prepared = PreparedSet.open(remote).cached(ShardCache.of(feed))
    asked: list[str] = []

    def choose(method: str, path: str) -> Fault | None:
        """One bit of an answer for each shard: of all of it, or of the pictures of a row group."""
        asked.append(path)
        return "flipped" if "/shards/" in path and asked.count(path) == (1 if cache_gib else 3) else None

    gateway.choose = choose
    check_equal(read_epoch(reader_of(prepared), 0), read_epoch(reader_of(local), 0))
    # The tail is so short that it comes with its footer.
    assert len(gateway.faults) == len(prepared.manifest.splits["train"].shards) - (0 if cache_gib else 1)


@pytest.mark.parametrize("room", [0, ROOM])
def test_damage_in_s3_is_named_by_row_group_with_and_without_a_cache(
    remote: str, local: PreparedSet, tmp_path: Path, room: int
) -> None:
    prepared = PreparedSet.open(remote).cached(ShardCache(str(tmp_path), room) if room else None)
    flipped, gone = (local.row_group("train", group).shard for group in (1, 12))
    assert flipped != gone
    content = bytearray(storage.read_bytes(f"{remote}/{flipped.path}"))
    content[len(content) // 2] ^= 1
    storage.write_bytes_atomically(f"{remote}/{flipped.path}", bytes(content))
    storage.remove(f"{remote}/{gone.path}")
    problems = []
    for group in range(prepared.num_groups("train")):
        try:
            prepared.read_group("train", group)
        except DamagedShardError as error:
            problems.append(str(error).partition(";")[0])
    in_flipped = [problem for problem in problems if problem.startswith(f"{remote}/{flipped.path}, row group ")]
    in_gone = [problem for problem in problems if problem.startswith(f"{remote}/{gone.path}, row group ")]
    assert len(in_flipped) == 1 and "checksum" in in_flipped[0]
    assert len(in_gone) == -(-gone.num_records // 64) and all("the shard is missing" in each for each in in_gone)
    assert len(problems) == len(in_flipped) + len(in_gone)


@pytest.mark.parametrize("room", [0, ROOM])
def test_a_server_that_never_comes_back_is_no_damage(
    remote: str, gateway: FaultyGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    prepared = PreparedSet.open(remote).cached(ShardCache(str(tmp_path), room) if room else None)
    monkeypatch.setenv("MLIM_RAY_S3_RETRY_S", "0.5")
    gateway.choose = lambda method, path: "503"
    with pytest.raises(storage.StorageError, match=f"^cannot read {remote}/shards/.*503.*asked again for 0 s"):
        read_epoch(reader_of(prepared, skips_damaged=True), 0)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("room", [0, pytest.param(ROOM, marks=pytest.mark.torture)])
def test_a_server_that_is_dead_for_20_s_changes_nothing(
    remote: str,
    local: PreparedSet,
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    """In the middle of an epoch where all is read in place; before its first shard where they are kept."""
    prepared = PreparedSet.open(remote).cached(ShardCache(str(tmp_path), room) if room else None)
    reader, is_back = reader_of(prepared), threading.Event()

    def come_back() -> None:
        is_back.set()
        object_store.revive("proxy")

    # Tasks of the next two chunks start when those before them were used up.
    monkeypatch.setattr(feed_module, "_TASKS_PER_PIPELINE", 2)
    num_steps = reader.order.epoch_steps
    stream = stream_batches(reader, 0, num_steps)
    num_before = 0 if room else 2 * reader.order.chunk_steps
    batches = [next(stream) for _ in range(num_before)]
    restart = threading.Timer(OUTAGE_S, come_back)
    object_store.kill("proxy")
    restart.start()
    try:
        batches.append(next(stream))
        assert is_back.is_set(), "nothing was asked of the dead server"
    finally:
        restart.join()
    batches += stream
    check_equal(joined(batches), read_epoch(reader_of(local), 0))


@pytest.mark.usefixtures("local_ray")
def test_a_stream_goes_on_without_its_server_once_all_is_kept(
    remote: str, local: PreparedSet, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_of(PreparedSet.open(remote).cached(ShardCache(str(tmp_path), ROOM)))
    monkeypatch.setattr(feed_module, "_TASKS_PER_PIPELINE", 2)
    num_steps = reader.order.epoch_steps
    stream = stream_batches(reader, 0, 3 * num_steps)
    batches = [next(stream) for _ in range(num_steps)]
    object_store.kill("proxy")
    try:
        batches += stream
    finally:
        object_store.revive("proxy")
    for epoch in range(3):
        check_equal(joined(batches[epoch * num_steps : (epoch + 1) * num_steps]), read_epoch(reader_of(local), epoch))


@pytest.mark.usefixtures("local_ray")
def test_a_run_trains_to_its_end_without_its_server_and_is_measured_once_it_is_back(
    bucket: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    prepare("generated:600", f"{bucket}/set", resolve_prepare_config(PrepareConfig(), 32))
    command = [sys.executable, str(EXPERIMENT), "--out", str(tmp_path / "run"), "--no-dashboard"]
    flags = f"--data {bucket}/set --steps {NUM_STEPS} --train.log-every-steps 1 --train.checkpoint-every-steps 20"
    flags += f" --probe.num-records 16 --feed.cache-folder {tmp_path / 'cache'}"
    environment = os.environ | {"MLIM_RAY_S3_RETRY_S": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        [*command, *flags.split()], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    tick = threading.Event()
    while not any(line["epoch"] >= 1 for line in read_metrics(str(tmp_path / "run"))):
        assert running.poll() is None
        tick.wait(0.01)
    object_store.kill("proxy")
    try:
        assert read_metrics(str(tmp_path / "run"))[-1]["step"] < NUM_STEPS
        told = running.communicate(timeout=BUDGET_S)[1]
    finally:
        object_store.revive("proxy")
    assert running.returncode == 2 and f"cannot read {bucket}/set/" in told.splitlines()[-1], told
    assert CheckpointStore(str(tmp_path / "run" / "checkpoints")).steps()[-1] == NUM_STEPS
    ended = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and (tmp_path / "run" / "evaluation.json").exists(), ended.stderr
