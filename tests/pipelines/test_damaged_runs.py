"""A run whose set is damaged: it stops and says where, or goes on without those records and says which."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.metrics import read_metrics
from mlim_ray.training.stream import stream_order
from tests.builders import digests, figures, timeless
from tests.pipelines.own_ray import OwnRay
from tests.prepared_sets import damage

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS, DAMAGED = 40, 9
"""two epochs and a half of some 960 records, 64 a step"""
FLAGS = (
    f"--steps {NUM_STEPS} --no-dashboard --train.log-every-steps 4 --train.checkpoint-every-steps 3 "
    "--probe.num-records 32 --probe.linear-train-records 100 --feed stream"
)
SKIP = ("--feed.on-damaged-shard", "skip")


@dataclass(frozen=True)
class Place:
    """Where commands are given, with a damaged set in it; all join one Ray."""

    folder: Path
    cluster: OwnRay

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = self.cluster.environment | {"RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def pretrain(self, out: str, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(ROOT / "experiments" / "pretrain.py"), *FLAGS.split(), "--out", out, *flags)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with OwnRay(dashboard=False) as cluster:
        place = Place(tmp_path_factory.mktemp("damaged"), cluster)
        done = place.run("-m", "mlim_ray.command_line.main", "prepare", "generated:1200", "set", "--no-dashboard")
        assert done.returncode == 0, done.stderr
        damage(PreparedSet.open(str(place.folder / "set")), DAMAGED)
        yield place


def losses(run: Path) -> list[dict[str, Any]]:
    return timeless(read_metrics(str(run)))


def test_a_damaged_shard_stops_a_run_which_may_go_on_without_it(place: Place) -> None:
    folder = place.folder
    prepared = PreparedSet.open(str(folder / "set"))
    group = prepared.row_group("train", DAMAGED)
    stopped = place.pretrain("one", "--data", "set")
    assert stopped.returncode == 2, stopped.stderr
    progress, line = stopped.stderr.splitlines()
    assert progress.startswith("pretrain: ")
    assert line.startswith(f"{group.path}, row group {group.index}: ") and f"mlim-ray verify {prepared.path}" in line
    verified = place.run("-m", "mlim_ray.command_line.main", "verify", "set")
    assert verified.returncode == 2 and group.shard.path in verified.stderr
    before = len(losses(folder / "one"))
    assert not (folder / "one" / "restarts.jsonl").exists(), "a damaged shard is as damaged at the next try"

    resumed = place.pretrain("one", "--resume", *SKIP)
    assert resumed.returncode == 0, resumed.stderr
    (told,) = [line for line in resumed.stdout.splitlines() if line.startswith("left out: ")]
    assert told == "left out: 64 damaged records in 1 row groups, which one/damaged.jsonl names"
    config = PretrainConfig()
    order = stream_order(prepared, config.train, config.feed)
    missing = np.cumsum([(order.rows_at(step).group == DAMAGED).sum() for step in range(NUM_STEPS)])
    lines = losses(folder / "one")
    assert [line["num_left_out"] for line in lines] == [missing[line["step"] - 1] for line in lines]
    assert lines[-1]["step"] == NUM_STEPS and lines[-1]["num_left_out"] >= 128 and before < len(lines)
    (named,) = map(json.loads, (folder / "one" / "damaged.jsonl").read_text().splitlines())
    expected = {
        "first_step": int(np.flatnonzero(missing)[0]) + 1,
        "shard": group.shard.path,
        "row_group": group.index,
        "num_records": 64,
        "problem": named["problem"],
    }
    assert named == expected and "checksum" in named["problem"]

    # From the start, and with two workers: the same.
    other = place.pretrain("two", "--data", "set", "--workers", "2", *SKIP)
    assert other.returncode == 0, other.stderr
    assert (folder / "two" / "damaged.jsonl").read_bytes() == (folder / "one" / "damaged.jsonl").read_bytes()
    for one, two in zip(lines, losses(folder / "two"), strict=True):
        assert figures(two) == pytest.approx(figures(one), rel=1e-5)
        assert digests(two) == digests(one)
