"""What a run over many records needs, from what one record and one step cost; `plan.py` prints it.

    records/s of a GPU     utilisation * peak / operations of a record
    busy hours             records * epochs / (GPUs * records/s of a GPU * scaling)
    CPUs of the feed       records/s * core seconds of a record / busy ratio
    hours                  first batch + busy hours * max(1, records/s * core seconds of a record / CPUs)
    data-wait              1 - busy hours / hours
    shards asked for       nodes * shards * kept ratio * (1 - (1 - 1 / nodes)^(row groups of a shard * epochs))
    row groups asked for   row groups * (1 - kept ratio) * epochs
    staging                cells of slices and of groups, each with one request, and another if any record lies in it

Each node keeps whole shards up to its cache; what finds no room there is read by row groups, once an epoch. A task runs
on whatever node has a CPU, so a node meets a shard in its first epoch unless all its row groups went elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlim_ray.data.s3.file import LEAST_AHEAD_BYTES
from mlim_ray.data.s3.objects import LARGE_BYTES
from mlim_ray.data.s3.uploads import MAX_PARTS, PART_BYTES
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.pipelines.feed import PREFETCHED_TASKS, TASK_BYTES
from mlim_ray.training.order import StreamOrder

TRAIN_RATIO = 0.8
"""of the records, where a source names no splits"""
CHECKPOINT_WRITES, CHECKPOINT_READS = 7, 1
"""requests of a checkpoint beside its files: the manifest, its copy, metrics and their index are written, the folder is
listed twice and its unfinished uploads once; the manifest is read"""
GROUP_REQUESTS = 3
"""for a row group of a shard that is not kept: the shard's size, its footer, its columns"""
WEIGHT_BYTES, STATE_BYTES = 4, 8
"""of a checkpoint for each parameter: the weight, and both moments of AdamW"""
_MANIFEST_BYTES = 270
"""of a shard's entry in the manifest (measured)"""
_SECONDS, _GIGA, _BITS = 3_600.0, 1e9, 8.0


@dataclass(frozen=True)
class RecordCosts:
    """What one record costs."""

    flops: float
    """of the forward and the backward pass"""
    feed_core_s: float
    """to read, decode and mask it, and to hand it to a worker"""
    prepare_core_s: float
    stored_bytes: float
    """in a shard"""
    batch_bytes: float
    """decoded and masked"""


@dataclass(frozen=True)
class Run:
    """What is trained on, and how."""

    num_records: int
    num_epochs: float
    batch_size: int
    group_records: int
    slice_records: int
    """of a piece of the first pass of prepare"""
    bucket_records: int
    """of a piece of the second pass"""
    num_parameters: int
    checkpoint_every_steps: int
    window_groups: int = 2
    num_lanes: int = 16

    @property
    def num_train(self) -> int:
        """Records of the training split."""
        return max(1, int(TRAIN_RATIO * self.num_records))

    @property
    def order(self) -> StreamOrder:
        """Of the records, as a run of this size has it."""
        return StreamOrder(
            self.num_train, self.group_records, self.batch_size, self.num_lanes, self.window_groups, seed=0
        )


@dataclass(frozen=True)
class Machines:
    """What it runs on."""

    num_gpus: int
    gpus_per_node: int
    cpus_per_gpu: int
    """that a GPU node has for each of its GPUs"""
    cpus_kept_per_gpu: float
    """of these, for the worker itself"""
    cpus_per_cpu_node: int
    peak_flops: float
    utilisation: float
    scaling: float
    """records/s of all GPUs over those of as many single ones"""
    busy_ratio: float
    """of the feed's CPUs: what is left evens out tasks of different lengths"""
    first_batch_s: float
    cache_bytes: float
    """of a node's disk, for shards"""
    upload_bytes_per_s: float
    reads_per_s: float
    """that S3 answers below one prefix"""
    num_cpu_nodes: int | None = None
    """None: as many as are needed"""

    @property
    def num_gpu_nodes(self) -> int:
        """As many as hold the GPUs."""
        return -(-self.num_gpus // self.gpus_per_node)


@dataclass(frozen=True)
class Prices:
    """In one currency."""

    gpu_node_hour: float
    cpu_node_hour: float
    head_hour: float
    thousand_reads: float
    thousand_writes: float


@dataclass(frozen=True)
class Training:
    """The GPUs' part."""

    records_per_s: float
    num_steps: int
    step_s: float
    busy_hours: float
    gradient_gbit: float
    """a second that each node sends to average gradients, where there are several"""


@dataclass(frozen=True)
class Feeding:
    """The CPUs' part."""

    cpus_per_gpu: float
    cpu_nodes_per_gpu: float
    """as if GPU nodes had no CPUs"""
    num_cpu_nodes: int
    """beside the CPUs that GPU nodes have to spare"""
    hours: float
    wait_ratio: float
    """data-wait"""
    tasks_per_s: float
    task_bytes: float
    batch_gbit: float
    """a second that a GPU node takes in, if all is decoded elsewhere"""
    gpu_node_store_bytes: float
    cpu_node_store_bytes: float


@dataclass(frozen=True)
class Storing:
    """What is asked of S3 while a run trains."""

    set_bytes: float
    """of the training split"""
    kept_ratio: float
    shard_reads: float
    group_reads: float
    group_reads_per_s: float
    read_bytes: float
    checkpoint_bytes: float
    num_checkpoints: int
    checkpoint_s: float
    """between two of them"""
    upload_s: float
    checkpoint_writes: float
    """requests of all of them"""

    @property
    def num_reads(self) -> float:
        """Requests for content."""
        return self.shard_reads + self.group_reads + CHECKPOINT_READS * self.num_checkpoints


@dataclass(frozen=True)
class Preparing:
    """What the records cost before."""

    core_hours: float
    num_slices: int
    num_buckets: int
    num_pieces: int
    """of the stage between, where there is one"""
    staging_reads: float
    """requests, where the set lies in S3"""
    staging_hours: float
    """that they take at the least"""
    table_bytes: float
    """of the tables of cells"""
    num_shards: int
    manifest_bytes: float


@dataclass(frozen=True)
class Needs:
    """All of it."""

    training: Training
    feeding: Feeding
    storing: Storing
    preparing: Preparing
    train_price: float
    prepare_price: float


def needs(run: Run, costs: RecordCosts, machines: Machines, prices: Prices) -> Needs:
    """Everything that a run needs. Raises ValueError where lanes are too few for the GPUs."""
    run.order.lanes_of(0, machines.num_gpus)
    training = train(run, costs, machines)
    feeding = feed(run, costs, machines, training)
    storing = store(run, costs, machines, training, machines.num_gpu_nodes + feeding.num_cpu_nodes)
    preparing = prepare(run, costs, machines)
    hourly = machines.num_gpu_nodes * prices.gpu_node_hour + feeding.num_cpu_nodes * prices.cpu_node_hour
    requests = storing.num_reads * prices.thousand_reads + storing.checkpoint_writes * prices.thousand_writes
    core_hour = prices.cpu_node_hour / machines.cpus_per_cpu_node
    return Needs(
        training,
        feeding,
        storing,
        preparing,
        feeding.hours * (hourly + prices.head_hour) + requests / 1_000,
        preparing.core_hours * core_hour + preparing.staging_reads * prices.thousand_reads / 1_000,
    )


def train(run: Run, costs: RecordCosts, machines: Machines) -> Training:
    """How long the GPUs take, and what they tell each other."""
    one = machines.utilisation * machines.peak_flops / costs.flops
    rate = one * machines.num_gpus * (machines.scaling if machines.num_gpus > 1 else 1.0)
    step_s = run.batch_size / rate
    is_apart = machines.num_gpu_nodes > 1
    gradients = 2 * WEIGHT_BYTES * run.num_parameters / step_s if is_apart else 0.0
    return Training(
        rate,
        math.ceil(run.order.epoch_steps * run.num_epochs),
        step_s,
        run.num_train * run.num_epochs / rate / _SECONDS,
        gradients * _BITS / _GIGA,
    )


def feed(run: Run, costs: RecordCosts, machines: Machines, training: Training) -> Feeding:
    """The CPUs that keep the GPUs busy, and the memory that batches wait in."""
    wanted = training.records_per_s * costs.feed_core_s
    num_cpus = wanted / machines.busy_ratio
    spare = machines.num_gpus * max(0.0, machines.cpus_per_gpu - machines.cpus_kept_per_gpu)
    num_nodes = machines.num_cpu_nodes
    if num_nodes is None:
        num_nodes = max(0, math.ceil((num_cpus - spare) / machines.cpus_per_cpu_node - 1e-9))
    slower = max(1.0, wanted / max(1e-9, spare + num_nodes * machines.cpus_per_cpu_node))
    hours = machines.first_batch_s / _SECONDS + training.busy_hours * slower
    task_records = _task_records(run, costs, machines.num_gpus)
    task_bytes = task_records * costs.batch_bytes
    held_by_worker = (PREFETCHED_TASKS + 1) * task_bytes
    running = min(num_cpus / (machines.num_gpu_nodes + num_nodes), machines.gpus_per_node * machines.cpus_per_gpu)
    return Feeding(
        cpus_per_gpu=num_cpus / machines.num_gpus,
        cpu_nodes_per_gpu=num_cpus / machines.num_gpus / machines.cpus_per_cpu_node,
        num_cpu_nodes=num_nodes,
        hours=hours,
        wait_ratio=1.0 - training.busy_hours / hours,
        tasks_per_s=training.records_per_s / task_records,
        task_bytes=task_bytes,
        batch_gbit=training.records_per_s * costs.batch_bytes / machines.num_gpu_nodes * _BITS / _GIGA,
        gpu_node_store_bytes=min(machines.num_gpus, machines.gpus_per_node) * held_by_worker + running * task_bytes,
        cpu_node_store_bytes=2.0 * machines.cpus_per_cpu_node * task_bytes,
    )


def store(run: Run, costs: RecordCosts, machines: Machines, training: Training, num_nodes: int) -> Storing:
    """Shards in, checkpoints out."""
    set_bytes = run.num_train * costs.stored_bytes
    kept = min(1.0, machines.cache_bytes / set_bytes)
    num_groups = run.num_train / run.group_records
    num_shards = max(1.0, run.num_records / run.bucket_records)
    met = 1.0 - (1.0 - 1.0 / num_nodes) ** (num_groups / num_shards * run.num_epochs)
    shard_reads = num_nodes * num_shards * kept * met
    groups_apart = num_groups * (1.0 - kept) * run.num_epochs
    group_bytes = run.group_records * costs.stored_bytes
    checkpoint_bytes = (WEIGHT_BYTES + STATE_BYTES) * run.num_parameters
    num_checkpoints = -(-training.num_steps // run.checkpoint_every_steps)
    writes = sum(upload_requests(size * run.num_parameters) for size in (WEIGHT_BYTES, STATE_BYTES))
    return Storing(
        set_bytes=set_bytes,
        kept_ratio=kept,
        shard_reads=shard_reads,
        group_reads=GROUP_REQUESTS * groups_apart,
        group_reads_per_s=GROUP_REQUESTS * (1.0 - kept) * training.records_per_s / run.group_records,
        read_bytes=shard_reads * set_bytes / num_shards + groups_apart * max(group_bytes, LEAST_AHEAD_BYTES),
        checkpoint_bytes=checkpoint_bytes,
        num_checkpoints=num_checkpoints,
        checkpoint_s=min(run.checkpoint_every_steps, training.num_steps) * training.step_s,
        upload_s=checkpoint_bytes / machines.upload_bytes_per_s,
        checkpoint_writes=num_checkpoints * (writes + CHECKPOINT_WRITES),
    )


def upload_requests(num_bytes: int) -> int:
    """Requests that write an object: one, or one for each part, to begin and to end."""
    if num_bytes < LARGE_BYTES:
        return 1
    return -(-num_bytes // max(PART_BYTES, -(-num_bytes // MAX_PARTS))) + 2


def prepare(run: Run, costs: RecordCosts, machines: Machines) -> Preparing:
    """Both passes over all records at once."""
    num_slices = -(-run.num_records // run.slice_records)
    num_buckets = -(-run.num_records // run.bucket_records)
    shuffle = Shuffle.plan("", num_slices, num_buckets)
    stages = [(num_slices, shuffle.num_ranges), (shuffle.num_groups if shuffle.num_pieces else 0, num_buckets)]
    num_shards = 3 * num_buckets
    staging_reads = sum(_cell_reads(run.num_records, files * cells) for files, cells in stages)
    return Preparing(
        core_hours=run.num_records * costs.prepare_core_s / _SECONDS,
        num_slices=num_slices,
        num_buckets=num_buckets,
        staging_reads=staging_reads,
        staging_hours=staging_reads / machines.reads_per_s / _SECONDS,
        num_pieces=shuffle.num_pieces,
        table_bytes=sum(16.0 * files * cells for files, cells in stages),
        num_shards=num_shards,
        manifest_bytes=float(_MANIFEST_BYTES * num_shards),
    )


def _cell_reads(num_records: int, num_cells: int) -> float:
    """Requests for all cells: where each lies, and again where it has a record."""
    return num_cells * (2.0 - math.exp(-num_records / num_cells)) if num_cells else 0.0


def _task_records(run: Run, costs: RecordCosts, num_gpus: int) -> float:
    """Records that a feed task gives, once a run is under way."""
    order = run.order
    chunk = max(1, order.chunk_steps * run.batch_size * (run.num_lanes // num_gpus) // run.num_lanes)
    return float(chunk * max(1, int(TASK_BYTES // (chunk * costs.batch_bytes))))
