"""The plan's arithmetic: a case that was computed by hand, what must hold for all, and that it is true of the code."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.needs import Machines, Needs, Prices, RecordCosts, Run, needs, upload_requests
from benchmarks.plan import CARDS, INPUTS, main
from mlim_ray.config import FeedConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.model.sizes import SIZES
from mlim_ray.pipelines.preparation import Addition, Preparation
from mlim_ray.training.order import StreamOrder

RUN = Run(
    num_records=1_000_000,
    num_epochs=2.0,
    batch_size=800,
    group_records=16,
    slice_records=2_000,
    bucket_records=1_000,
    num_parameters=100_000_000,
    checkpoint_every_steps=500,
)
COSTS = RecordCosts(flops=1e11, feed_core_s=1e-3, prepare_core_s=7.2e-4, stored_bytes=1e4, batch_bytes=2**20 / 8)
MACHINES = Machines(
    num_gpus=8,
    gpus_per_node=8,
    cpus_per_gpu=0,
    cpus_kept_per_gpu=0.0,
    cpus_per_cpu_node=10,
    peak_flops=1e14,
    utilisation=0.5,
    scaling=0.8,
    busy_ratio=0.8,
    first_batch_s=10.0,
    cache_bytes=4e9,
    upload_bytes_per_s=1e8,
    reads_per_s=1_000.0,
)
PRICES = Prices(gpu_node_hour=10.0, cpu_node_hour=1.0, head_hour=0.0, thousand_reads=0.001, thousand_writes=0.01)


def plan(run: Run = RUN, machines: Machines = MACHINES) -> Needs:
    return needs(run, COSTS, machines, PRICES)


def test_a_case_that_was_computed_by_hand() -> None:
    found = plan()
    training, feeding, storing, preparing = found.training, found.feeding, found.storing, found.preparing
    # 500 records/s of one GPU, and 800,000 training records.
    assert training.records_per_s == pytest.approx(3_200.0)
    assert training.step_s == pytest.approx(0.25)
    assert training.busy_hours == pytest.approx(500.0 / 3_600)
    assert training.num_steps == 2_000
    assert training.gradient_gbit == 0.0
    # 3.2 cores work, 4 of them so that a fifth is idle; one node of 10.
    assert feeding.cpus_per_gpu == pytest.approx(0.5)
    assert feeding.cpu_nodes_per_gpu == pytest.approx(0.05)
    assert feeding.num_cpu_nodes == 1
    assert feeding.wait_ratio == pytest.approx(10.0 / 510.0)
    # A chunk is a step: 800 records, 100 of them a worker's, 12.5 MiB; five of them fill a task.
    assert feeding.task_bytes == pytest.approx(5 * 100 * 2**17)
    assert feeding.tasks_per_s == pytest.approx(3_200 / 500)
    assert feeding.gpu_node_store_bytes == pytest.approx(8 * 3 * 500 * 2**17)
    # 8 GB, of which two nodes keep a half each: 500 of 1,000 shards; all are met by both.
    assert storing.kept_ratio == pytest.approx(0.5)
    assert storing.shard_reads == pytest.approx(1_000.0)
    assert storing.group_reads == pytest.approx(3 * 50_000 * 0.5 * 2)
    # A row group has 160 KB, and never less than 256 KiB are asked for.
    assert storing.read_bytes == pytest.approx(2 * 4e9 + 50_000 * 2**18)
    assert (storing.num_checkpoints, storing.checkpoint_bytes) == (4, 1_200_000_000)
    assert storing.checkpoint_s == pytest.approx(125.0) and storing.upload_s == pytest.approx(12.0)
    # 400 MB and 800 MB in parts of 16 MiB: 24 and 48 of them, begun and ended.
    assert storing.checkpoint_writes == 4 * (26 + 50 + 7)
    assert preparing.core_hours == pytest.approx(0.2)
    assert (preparing.num_slices, preparing.num_buckets, preparing.num_shards) == (500, 1_000, 3_000)
    # Ranges of 32 buckets, groups of 32 slices; hardly a cell is empty.
    assert preparing.num_pieces == 32 * 16
    assert preparing.staging_reads == pytest.approx(2 * (500 * 32 + 16 * 1_000))
    few = plan(replace(RUN, num_records=200_000)).preparing
    assert (few.num_slices, few.num_buckets, few.num_pieces) == (100, 200, 0)
    assert few.staging_reads == pytest.approx(20_000 * (2.0 - math.exp(-10.0)))
    assert preparing.staging_hours == pytest.approx(preparing.staging_reads / 3.6e6)
    # 200 row groups a second, half of them kept.
    assert storing.group_reads_per_s == pytest.approx(300.0)
    requests = 0.001 * (1_000 + 150_000 + 4) / 1_000 + 0.01 * 332 / 1_000
    assert found.train_price == pytest.approx(11.0 * 510 / 3_600 + requests)
    assert found.prepare_price == pytest.approx(0.2 * 0.1 + preparing.staging_reads * 1e-6)


@given(st.integers(10_000, 10**9), st.integers(2, 100))
def test_more_records_take_more_of_everything(num_records: int, times: int) -> None:
    few = plan(replace(RUN, num_records=num_records))
    many = plan(replace(RUN, num_records=times * num_records))
    assert many.feeding.hours > few.feeding.hours
    assert many.storing.num_reads > few.storing.num_reads
    assert many.train_price > few.train_price
    assert many.preparing.core_hours == pytest.approx(times * few.preparing.core_hours, rel=1e-6)
    # With a stage between, reads are far from growing with the square.
    if few.preparing.num_pieces:
        assert many.preparing.staging_reads < 1.5 * times**1.5 * few.preparing.staging_reads
    assert many.feeding.num_cpu_nodes == few.feeding.num_cpu_nodes


@given(st.sampled_from([2, 4, 8, 16, 32]), st.floats(1e-5, 1e-1))
def test_twice_the_gpus_take_twice_the_cpus_and_half_the_time(num_gpus: int, feed_core_s: float) -> None:
    costs = replace(COSTS, feed_core_s=feed_core_s)
    run = replace(RUN, num_lanes=64, batch_size=100 * num_gpus)
    one = needs(run, costs, replace(MACHINES, num_gpus=num_gpus, first_batch_s=0.0), PRICES)
    run = replace(run, batch_size=200 * num_gpus)
    two = needs(run, costs, replace(MACHINES, num_gpus=2 * num_gpus, first_batch_s=0.0), PRICES)
    assert two.feeding.hours == pytest.approx(one.feeding.hours / 2)
    assert two.feeding.cpus_per_gpu == pytest.approx(one.feeding.cpus_per_gpu)
    assert two.feeding.num_cpu_nodes in (2 * one.feeding.num_cpu_nodes, 2 * one.feeding.num_cpu_nodes - 1)
    assert two.feeding.tasks_per_s > 1.5 * one.feeding.tasks_per_s
    assert (two.training.gradient_gbit > 0.0) == (2 * num_gpus > MACHINES.gpus_per_node)


@given(st.integers(1, 60))
def test_as_many_nodes_as_are_needed_keep_data_wait_down_and_fewer_do_not(num_gpus: int) -> None:
    run = replace(RUN, num_lanes=64, num_epochs=100.0)
    costs = replace(COSTS, feed_core_s=0.05)
    machines = replace(MACHINES, num_gpus=num_gpus)
    enough = needs(run, costs, machines, PRICES)
    assert enough.feeding.wait_ratio < 0.02
    half = needs(run, costs, replace(machines, num_cpu_nodes=enough.feeding.num_cpu_nodes // 2), PRICES)
    assert half.feeding.wait_ratio > 0.2
    assert half.feeding.hours > enough.feeding.hours
    none = replace(machines, cpus_per_gpu=1_000)
    assert needs(run, costs, none, PRICES).feeding.num_cpu_nodes == 0


def test_more_gpus_than_lanes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"64 workers for 16 lanes.*--feed.num-lanes"):
        plan(machines=replace(MACHINES, num_gpus=64))


@given(st.integers(1, 20_000_000_000))
def test_an_upload_takes_a_request_for_each_part(num_bytes: int) -> None:
    found = upload_requests(num_bytes)
    assert found == 1 if num_bytes < 32 << 20 else 4 <= found <= 1_002


@pytest.mark.parametrize("size", ["base", "large"])
def test_slices_and_buckets_are_those_of_prepare(size: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = resolve_prepare_config(PrepareConfig(), SIZES[size].image_size)
    source = open_source("generated:1000000", config)
    found = Preparation(Addition("prepare", source, "out", config, False), "staging", None)
    out = tmp_path / "plan.json"
    main(["--records", "1000000", "--size", size, "--out", str(out)])
    (planned,) = json.loads(out.read_text())["plans"]
    assert planned["preparing"]["num_slices"] == pytest.approx(len(found.slices), rel=0.001)
    assert planned["preparing"]["num_buckets"] == pytest.approx(found.shuffle.num_buckets, rel=0.002)


def test_a_table_of_plans_says_where_each_number_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert main(["--table", "--size", "base", "--card", "H100", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [(plan["records"], plan["gpus"]) for plan in record["plans"]] == [
        (10_000_000, 8),
        (10_000_000, 64),
        (1_000_000_000, 8),
        (1_000_000_000, 64),
    ]
    assert list(record["inputs"]) == list(INPUTS)
    said = capsys.readouterr().out
    for name, found in record["inputs"].items():
        assert found["value"] > 0 and found["source"] and f"  {name} " in said
    assert "--feed.num-lanes 64" in said
    assert all(plan["feeding"]["wait_ratio"] < 0.02 for plan in record["plans"] if plan["feeding"]["hours"] > 0.5)


def test_what_does_not_fit_is_said_with_its_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--records", "100000", "--epochs", "1000", "--gpus", "1"]) == 0
    assert "does not fit" not in capsys.readouterr().out
    assert main(["--records", "1000000000", "--gpus", "64", "--card", "H100", "--upload-mb-per-s", "20"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "does not fit" in line]
    mends = (
        "--train.checkpoint-every-steps",
        "--feed.cache-gib",
        "prepare on a disk",
        "every process builds the manifest",
    )
    assert len(lines) == 4 and all(mend in line for mend, line in zip(mends, lines, strict=True))


def test_numbers_of_one_s_own_take_the_place_of_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--{name.lower().replace('/', '-per-').replace(' ', '-')}" for name in INPUTS]
    values = {flag: "3" for flag in flags} | {"--utilisation": "0.5", "--scaling": "0.5", "--busy-ratio": "0.5"}
    assert main(["--records", "1000000", "--gpus", "1", *[word for pair in values.items() for word in pair]]) == 0
    assert capsys.readouterr().out.count("   given\n") == len(INPUTS)


def test_the_cards_are_of_machines_that_the_doctor_knows() -> None:
    from mlim_ray.pipelines.doctor.instance_types import machine_of

    for card in CARDS.values():
        machine = machine_of(card.machine)
        assert machine is None or (machine.num_gpus, machine.num_cpus) == (8, 8 * card.cpus_per_gpu)


def test_lanes_and_windows_are_the_defaults_of_a_run() -> None:
    feed = FeedConfig()
    assert (RUN.num_lanes, RUN.window_groups) == (feed.num_lanes, feed.window_groups)
    assert isinstance(RUN.order, StreamOrder)
