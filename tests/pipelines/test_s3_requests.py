"""How many requests a run's reading and saving take, as `benchmarks/needs.py` counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch

from benchmarks.needs import (
    CHECKPOINT_READS,
    CHECKPOINT_WRITES,
    GROUP_REQUESTS,
    STATE_BYTES,
    WEIGHT_BYTES,
    upload_requests,
)
from mlim_ray.data import row_groups, storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS
from mlim_ray.data.shard_cache import ShardCache
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import MetricsWriter
from tests.faulty_gateway import FaultyGateway
from tests.object_store import ObjectStore
from tests.prepared_sets import NUM_BUCKETS, source_records, staged, write_prepared

pytestmark = [pytest.mark.cluster, pytest.mark.long]


@pytest.fixture
def gateway(
    bucket: str, object_store: ObjectStore, own_client: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyGateway]:
    """Counts all requests."""
    with FaultyGateway(object_store.port) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


def kinds(gateway: FaultyGateway) -> Counter[str]:
    """Requests since the last look: GET of content, HEAD, LIST, and what writes; what deletes costs nothing."""
    found: Counter[str] = Counter()
    for request in gateway.requests:
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        is_listing = request.method == "GET" and not {"list-type", "uploads"}.isdisjoint(query)
        found["LIST" if is_listing else request.method] += 1
    gateway.requests.clear()
    return found


@pytest.mark.parametrize(
    ("side", "encoding", "num_records"),
    [(32, "raw", 900), (224, "jpeg", 240)],
    ids=["small", "large"],
)
def test_a_row_group_and_a_shard(
    side: int,
    encoding: str,
    num_records: int,
    bucket: str,
    gateway: FaultyGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row groups of 0.2 and of 0.8 MB, in shards that are larger than what is read ahead."""
    monkeypatch.setattr("tests.prepared_sets.SIZE", side)
    local = write_prepared(tmp_path, source_records(num_records), encoding)
    for file in storage.list_files(local.path):
        storage.write_bytes_atomically(f"{bucket}/set/{file.relative}", storage.read_bytes(file.path))
    prepared = PreparedSet.open(f"{bucket}/set")
    num_groups = prepared.num_groups("train")
    assert num_groups >= 3
    kinds(gateway)
    for group in range(num_groups):
        row_groups.open_shard.cache_clear()
        prepared.read_group("train", group, COLUMNS)
    found = kinds(gateway)
    # Of a small last shard the footer and the columns come at once.
    assert found["HEAD"] == num_groups and found.total() in (
        GROUP_REQUESTS * num_groups,
        GROUP_REQUESTS * num_groups - 1,
    )
    cached = prepared.cached(ShardCache(str(tmp_path / "cache"), 1 << 30))
    for group in range(num_groups):
        row_groups.open_shard.cache_clear()
        cached.read_group("train", group, COLUMNS)
    assert kinds(gateway) == {"GET": len(prepared.manifest.splits["train"].shards)}


def test_a_checkpoint_with_the_metrics_before_it(bucket: str, gateway: FaultyGateway) -> None:
    store, metrics = CheckpointStore(f"{bucket}/run/checkpoints"), MetricsWriter(f"{bucket}/run", 0)
    num_parameters = 10_000_000
    weights = {"weight": torch.zeros(num_parameters)}
    state = {"mean": torch.zeros(num_parameters), "square": torch.zeros(num_parameters)}
    for step in range(1, 5):
        metrics.write({"step": step, "loss/total": 1.0})
        kinds(gateway)
        metrics.flush()
        store.save(step, weights, state)
        found = kinds(gateway)
        if step > 1:
            # Files end in some headers beyond their numbers, which may begin one part more.
            files = sum(upload_requests(size * num_parameters + 65_536) for size in (WEIGHT_BYTES, STATE_BYTES))
            assert found["PUT"] + found["POST"] + found["LIST"] == files + CHECKPOINT_WRITES
            assert found["GET"] == CHECKPOINT_READS


def test_a_bucket_of_prepare_asks_every_slice_and_once_more_where_it_finds_records(
    bucket: str, gateway: FaultyGateway
) -> None:
    num_empty = 5
    shuffle = Shuffle.plan(f"{bucket}/staging", num_empty + 1, NUM_BUCKETS)
    for number in range(num_empty):
        shuffle.write_slice(number, [])
    shuffle.write_slice(num_empty, [staged(source_records(60), "raw")])
    kinds(gateway)
    assert sum(len(shuffle.read_bucket(number)) for number in range(NUM_BUCKETS)) == 60
    found = kinds(gateway)
    assert found == {"GET": NUM_BUCKETS * (num_empty + 2)} and found["GET"] <= shuffle.num_reads
