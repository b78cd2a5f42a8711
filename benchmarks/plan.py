"""What would a run over so many records on so many GPUs need: hours, CPU nodes, requests to S3, memory, money?

Command:  python -m benchmarks.plan --records 10000000 --gpus 8
          python -m benchmarks.plan --table --out plan.json
Cost:     seconds; nothing is measured, started or asked.
Figures:  every number that goes in has a flag and is printed with where it comes from: a record of docs/runs, the code
          itself, or an assumption. `needs.py` has the formulas, docs/scale.md what they say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import torch

from benchmarks.in_memory import Workload
from benchmarks.needs import Machines, Needs, Prices, RecordCosts, Run, needs
from benchmarks.record import ROOT, median, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.config import FeedConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.shards import row_group_records
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.data.sources.source import SLICE_RECORDS
from mlim_ray.data.task_sizes import num_buckets, slice_records
from mlim_ray.model import MlimModel
from mlim_ray.model.flops import Contents, step_flops
from mlim_ray.model.sizes import SIZES
from mlim_ray.training.throughput import contents_of

DATA_WAIT = 0.02
"""of a run's time, at most"""
_BUSY_RATIO = 0.8
_DAY_HOURS, _LARGE_MANIFEST = 24.0, 1e8
_RECORDS = ROOT / "docs" / "runs"
_VOCAB_SIZE = 30_522
_LOOKED_AT = 256
_TABLE = tuple(product(((10_000_000, 10.0), (1_000_000_000, 1.0)), (8, 64)))


class Card(NamedTuple):
    """A GPU, and the machine with 8 of them that AWS lets."""

    peak_tflops: float
    """of dense bfloat16 matrix products, as its maker says"""
    machine: str
    cpus_per_gpu: int
    price: float
    """USD an hour on demand, as we remember it"""


CARDS = {
    "A10G": Card(70.0, "g5.48xlarge", 24, 16.3),
    "L4": Card(121.0, "g6.48xlarge", 24, 13.4),
    "A100": Card(312.0, "p4d.24xlarge", 12, 22.0),
    "H100": Card(989.0, "p5.48xlarge", 24, 55.0),
}
INPUTS = (
    *("GFLOP a record", "parameters", "batch bytes", "stored bytes"),
    *("feed core ms", "first batch s", "busy ratio", "prepare core ms"),
    *(
        "batch per GPU",
        "peak TFLOP/s",
        "utilisation",
        "scaling",
        "steps a checkpoint",
        "upload MB/s",
        "cache GiB",
        "GET/s",
    ),
    *("GPUs a node", "CPUs a GPU", "CPUs a worker", "CPUs a CPU node"),
    *("GPU node USD/h", "CPU node USD/h", "head USD/h", "USD/1000 GET", "USD/1000 PUT"),
)
"""numbers that go in, each with a flag"""
_STORED_BYTES = {224: 10_600.0, 384: 28_000.0}
_BATCH_PER_GPU = {"base": 128, "large": 32}


@dataclass(frozen=True)
class Given:
    """A number that goes in, and where it comes from."""

    value: float
    source: str


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan of one run, or of the table's, from the command line."""
    given = _parser().parse_args(argv)
    card = CARDS[given.card]
    inputs = resolve_inputs(given, card)
    print(f"{given.size} at {SIZES[given.size].image_size} px on {given.card}\n\nwhat goes in:")
    for name, number in inputs.items():
        print(f"  {name:<20}{number.value:>16,.6g}   {number.source}")
    cases = _TABLE if given.table else (((given.records, given.epochs), given.gpus),)
    plans = []
    for (num_records, num_epochs), num_gpus in cases:
        found = plan(given.size, num_records, num_epochs, num_gpus, inputs, cpu_nodes=given.cpu_nodes)
        print(f"\n{num_records:,} records x {num_epochs:g} epochs on {num_gpus} GPUs:")
        for line in lines_of(found, inputs, num_gpus):
            print(f"  {line}")
        plans.append({"records": num_records, "epochs": num_epochs, "gpus": num_gpus, **asdict(found)})
    write_record(
        given.out,
        {
            "size": given.size,
            "card": given.card,
            "inputs": {name: asdict(value) for name, value in inputs.items()},
            "plans": plans,
        },
    )
    return 0


def plan(
    size: str,
    num_records: int,
    num_epochs: float,
    num_gpus: int,
    inputs: dict[str, Given],
    *,
    cpu_nodes: int | None = None,
) -> Needs:
    """What such a run needs, with `resolve_inputs`' numbers."""
    value = {name: given.value for name, given in inputs.items()}
    image_size = SIZES[size].image_size  # type: ignore[index]
    config = resolve_prepare_config(PrepareConfig(), image_size)
    rules = CleaningRules.of(config, has_split=False)
    run = Run(
        num_records=num_records,
        num_epochs=num_epochs,
        batch_size=num_gpus * int(value["batch per GPU"]),
        group_records=row_group_records(image_size),
        slice_records=_slice_records(slice_records(rules)),
        bucket_records=-(-num_records // num_buckets(num_records, rules)),
        num_parameters=int(value["parameters"]),
        checkpoint_every_steps=int(value["steps a checkpoint"]),
        num_lanes=max(FeedConfig().num_lanes, num_gpus),
    )
    costs = RecordCosts(
        flops=1e9 * value["GFLOP a record"],
        feed_core_s=1e-3 * value["feed core ms"],
        prepare_core_s=1e-3 * value["prepare core ms"],
        stored_bytes=value["stored bytes"],
        batch_bytes=value["batch bytes"],
    )
    machines = Machines(
        num_gpus=num_gpus,
        gpus_per_node=int(value["GPUs a node"]),
        cpus_per_gpu=int(value["CPUs a GPU"]),
        cpus_kept_per_gpu=value["CPUs a worker"],
        cpus_per_cpu_node=int(value["CPUs a CPU node"]),
        peak_flops=1e12 * value["peak TFLOP/s"],
        utilisation=value["utilisation"],
        scaling=value["scaling"],
        busy_ratio=value["busy ratio"],
        first_batch_s=value["first batch s"],
        cache_bytes=value["cache GiB"] * 2**30,
        upload_bytes_per_s=1e6 * value["upload MB/s"],
        reads_per_s=value["GET/s"],
        num_cpu_nodes=cpu_nodes,
    )
    prices = Prices(
        value["GPU node USD/h"],
        value["CPU node USD/h"],
        value["head USD/h"],
        value["USD/1000 GET"],
        value["USD/1000 PUT"],
    )
    return needs(run, costs, machines, prices)


def resolve_inputs(given: argparse.Namespace, card: Card) -> dict[str, Given]:
    """Every number that goes in: the flag's, or the record's, or the code's, or what is assumed."""
    flags = vars(given)
    shape = Workload(given.size, 16, vocab_size=_VOCAB_SIZE, num_records=_LOOKED_AT)
    defaults = {
        **_of_the_code(shape),
        **_of_records(shape.shape.image_size),
        "stored bytes": Given(
            _STORED_BYTES[shape.shape.image_size], "docs/prepared_sets.md (224 px), docs/s3.md (384 px, estimated)"
        ),
        "batch per GPU": Given(_BATCH_PER_GPU[given.size], "assumed"),
        "peak TFLOP/s": Given(card.peak_tflops, f"the maker's, of {given.card}"),
        "utilisation": Given(0.4, "assumed: no GPU was measured; 0.5 is the goal of benchmarks/gpu_step.py"),
        "scaling": Given(0.9, "assumed"),
        "GPUs a node": Given(8, card.machine),
        "CPUs a GPU": Given(card.cpus_per_gpu, card.machine),
        "CPUs a worker": Given(2, "assumed: kept for the worker beside its GPU"),
        "CPUs a CPU node": Given(16, "m6i.4xlarge"),
        "steps a checkpoint": Given(500, "the default of --train.checkpoint-every-steps"),
        "cache GiB": Given(32, "the default of --feed.cache-gib"),
        "upload MB/s": Given(200, "assumed"),
        "GET/s": Given(5_500, "S3's own limit below one prefix, as AWS documents it"),
        "GPU node USD/h": Given(card.price, f"{card.machine} on demand, as we remember it"),
        "CPU node USD/h": Given(0.77, "m6i.4xlarge, docs/cluster_aws.md"),
        "head USD/h": Given(0.38, "m6i.2xlarge, docs/cluster_aws.md"),
        "USD/1000 GET": Given(0.0004, "S3, as we remember it"),
        "USD/1000 PUT": Given(0.005, "S3, as we remember it; to list costs as much"),
    }
    return {
        name: defaults[name] if flags[_flag(name)] is None else Given(flags[_flag(name)], "given") for name in INPUTS
    }


def _of_the_code(work: Workload) -> dict[str, Given]:
    """What model and batches say of themselves, with the paper's masks and titles of a catalogue."""
    batches = list(work.batches(0, _LOOKED_AT // work.batch_size))
    total = Contents._make(map(sum, zip(*map(contents_of, batches), strict=True)))
    num_records = sum(len(batch.key_hash_B) for batch in batches)
    num_bytes = sum(array.nbytes for batch in batches for array in batch)
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in MlimModel(work.shape).parameters())
    return {
        "GFLOP a record": Given(step_flops(work.shape, total) / num_records / 1e9, "mlim_ray/model/flops.py"),
        "parameters": Given(num_parameters, "the model itself"),
        "batch bytes": Given(num_bytes / num_records, "a batch of its own"),
    }


def _of_records(image_size: int) -> dict[str, Given]:
    """What was measured on this project's machines, scaled by the pixels where no record has this size."""
    feeds = {found["image_size"]: (name, found) for name, found in _read("benchmark-feed*.json")}
    nearest = min(feeds, key=lambda size: abs(size - image_size))
    name, found = feeds[nearest]
    streams = [each["stream"] for each in found["rounds"]]
    # Processor time: the machines that these were measured on had other work too.
    feed_s = median(1e3 * stream["cpu_s"] / stream["records"] for stream in streams)
    ((_, prepared),) = _read("benchmark-prepare.json")
    rounds = [each["pipeline"] for each in prepared["rounds"]]
    prepare_s = median(1e3 * each["cpu_s"] / prepared["records"] for each in rounds)
    return {
        "feed core ms": _scaled(feed_s, nearest, image_size, name),
        "first batch s": Given(median(stream["first_batch_s"] for stream in streams), name),
        "prepare core ms": _scaled(prepare_s, prepared["image_size"], image_size, "docs/runs/benchmark-prepare.json"),
        "busy ratio": _busy_ratio(),
    }


def _busy_ratio() -> Given:
    """The greatest share of the feed's full rate at which data-wait was under 2 %."""
    for name, found in _read("benchmark-data-wait.json"):
        enough = [float(share) for share, wait in found["summary"].items() if wait < DATA_WAIT]
        return Given(max(enough, default=0.5), name)
    return Given(_BUSY_RATIO, "assumed; benchmarks/data_wait.py measures it")


def _slice_records(most: int) -> int:
    """Of slices that are put together of a source's own, or cut from them."""
    if most >= SLICE_RECORDS:
        return most // SLICE_RECORDS * SLICE_RECORDS
    return SLICE_RECORDS // -(-SLICE_RECORDS // most)


def _scaled(value: float, measured_at: int, image_size: int, name: str) -> Given:
    if measured_at == image_size:
        return Given(value, name)
    factor = (image_size / measured_at) ** 2
    return Given(value * factor, f"{name}, {measured_at} px, times {factor:.2f} for the pixels")


def _read(pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(_RECORDS.glob(pattern)):
        yield f"docs/runs/{path.name}", json.loads(path.read_text())


def lines_of(found: Needs, inputs: dict[str, Given], num_gpus: int) -> Iterator[str]:
    """The plan in words."""
    training, feeding, storing, preparing = found.training, found.feeding, found.storing, found.preparing
    rate = f"{training.records_per_s:,.0f} records/s"
    yield f"time          {feeding.hours:,.1f} h, {rate}, {training.num_steps:,} steps of {training.step_s:.2f} s"
    yield f"data-wait     {feeding.wait_ratio:.2%}"
    yield (
        f"feed          {feeding.cpus_per_gpu:.2f} CPUs a GPU, or {feeding.cpu_nodes_per_gpu:.3f} CPU nodes; "
        f"{feeding.num_cpu_nodes} nodes beside what GPU nodes have"
    )
    yield (
        f"              {feeding.tasks_per_s:,.1f} tasks/s of {feeding.task_bytes / 2**20:.0f} MiB, "
        f"{feeding.batch_gbit:.1f} Gbit/s into a GPU node if all is decoded elsewhere"
    )
    yield (
        f"object store  {feeding.gpu_node_store_bytes / 2**30:.1f} GiB on a GPU node, "
        f"{feeding.cpu_node_store_bytes / 2**30:.1f} GiB on a CPU node"
    )
    yield f"gradients     {training.gradient_gbit:.1f} Gbit/s out of each GPU node"
    yield (
        f"S3, reading   {storing.num_reads:,.0f} requests: {storing.shard_reads:,.0f} for shards, "
        f"{storing.group_reads:,.0f} for row groups, {storing.group_reads_per_s:,.0f}/s; "
        f"{storing.read_bytes / 1e12:,.2f} TB"
    )
    yield f"              a node keeps {storing.kept_ratio:.1%} of a set of {storing.set_bytes / 1e12:,.2f} TB"
    yield (
        f"checkpoints   {storing.num_checkpoints:,} of {storing.checkpoint_bytes / 1e9:.1f} GB, "
        f"{storing.checkpoint_writes:,.0f} requests; one every {storing.checkpoint_s:,.0f} s, "
        f"{storing.upload_s:,.0f} s to upload"
    )
    yield (
        f"prepare       {preparing.core_hours:,.0f} core hours, {preparing.num_shards:,} shards, "
        f"a manifest of {preparing.manifest_bytes / 1e6:,.0f} MB"
    )
    yield (
        f"              {preparing.num_slices:,} slices, {preparing.num_pieces:,} pieces between, "
        f"{preparing.num_buckets:,} buckets: {preparing.staging_reads:,.0f} reads, "
        f"{preparing.staging_hours:,.1f} h at the least, {preparing.table_bytes / 1e12:,.3f} TB of tables"
    )
    yield f"price         {found.train_price:,.0f} USD to train, {found.prepare_price:,.0f} USD to prepare in S3"
    if num_gpus > FeedConfig().num_lanes:
        yield f"it wants      --feed.num-lanes {num_gpus}"
    for limit in limits_of(found, inputs):
        yield f"does not fit  {limit}"


def limits_of(found: Needs, inputs: dict[str, Given]) -> Iterator[str]:
    """What of the plan the code, or S3, does not bear, each with the mend."""
    storing, preparing = found.storing, found.preparing
    if storing.upload_s > storing.checkpoint_s:
        steps = inputs["steps a checkpoint"].value * storing.upload_s / storing.checkpoint_s
        yield f"a checkpoint comes before the last is written: --train.checkpoint-every-steps {steps:.0f} or more"
    if storing.group_reads_per_s > inputs["GET/s"].value:
        yield "row groups are asked for faster than S3 answers below one prefix: a larger --feed.cache-gib"
    if preparing.staging_hours > _DAY_HOURS:
        yield "the staging of prepare takes days in S3: prepare on a disk, see docs/scale.md"
    if preparing.manifest_bytes > _LARGE_MANIFEST:
        yield "every process builds the manifest, seconds for each 100 MB: see docs/scale.md"


def _flag(name: str) -> str:
    return name.lower().replace("/", "_per_").replace(" ", "_")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=10_000_000, help="of the catalogue (10,000,000)")
    parser.add_argument("--epochs", type=float, default=10.0, help="times that each is seen (10)")
    parser.add_argument("--gpus", type=int, default=8, help="workers (8)")
    parser.add_argument("--size", choices=tuple(_BATCH_PER_GPU), default="base", help="of the model (base)")
    parser.add_argument("--card", choices=tuple(CARDS), default="A10G", help="the GPU (A10G)")
    parser.add_argument("--cpu-nodes", type=int, help="so many, instead of what keeps data-wait under 2 %%")
    parser.add_argument("--table", action="store_true", help="10 M and 1 B records on 8 and 64 GPUs")
    parser.add_argument("--out", help="JSON file for the figures")
    for name in INPUTS:
        parser.add_argument(f"--{_flag(name).replace('_', '-')}", type=float, help=f"{name}, instead of what is known")
    return parser


if __name__ == "__main__":
    sys.exit(main())
