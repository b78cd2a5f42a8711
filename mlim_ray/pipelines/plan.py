"""What `--dry-run` prints: the resolved config and the arithmetic, from the source's own description.

Nothing is prepared, written or started; a Ray at an `--address` is asked for its resources.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from mlim_ray.config import PrepareConfig, PretrainConfig, SearchConfig, SearchRunConfig
from mlim_ray.config.files import config_text
from mlim_ray.config.search import NUM_ARMS
from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.shards import row_group_records
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.data.tokenizer import load_tokenizer
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.model.bert import weights_file
from mlim_ray.pipelines.cluster import LOCAL, Cluster, connect, this_machine
from mlim_ray.pipelines.feed import resident_bytes
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.resources import WorkerPlan, plan_run, plan_search
from mlim_ray.pipelines.setting import (
    Feed,
    check_places,
    check_same_set,
    config_of,
    is_prepared,
    streams_records,
)
from mlim_ray.reporting.progress import say
from mlim_ray.training.build import model_config
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.resolution import stages_of
from mlim_ray.training.run_folder import RunFolder, describe_folder
from mlim_ray.training.stream import TRAIN_SPLIT

_TRAIN_SHARE = 0.8

Config = TypeVar("Config", bound=PretrainConfig)


@dataclass(frozen=True)
class _Records:
    """What is known of the records without preparing them."""

    line: str
    num_train: int
    group_records: int
    short_groups: tuple[tuple[int, int], ...]
    """of an appended set; none are known of a source that is not prepared yet"""
    shape: MlimConfig
    prepare: PrepareConfig
    """the prepared set's, with no auto left"""


def describe_run(
    request: RunRequest[Config], experiment: str = "pretrain", auto_feed: Feed = "stream"
) -> dict[str, object]:
    """Print the plan of a pre-training run, or of an experiment that consists of some; gives its figures.

    Raises ValueError where the run would be refused.
    """
    with _cluster(request.address) as cluster:
        folder, config, records, plan = _plan_run(request, cluster, experiment, auto_feed)
        order = _order(config, records)
        num_steps = config.train.num_steps
        _say_plan(config, records)
        say(f"steps: {num_steps:,} of {config.train.batch_size} records = {order.samples_at(num_steps):,} records")
        return _close(folder, records, plan, cluster, num_steps)


def describe_search(request: RunRequest[SearchRunConfig]) -> dict[str, object]:
    """Print the plan of a search; gives its figures. Raises ValueError where the search would be refused."""
    with _cluster(request.address) as cluster:
        folder, config, records, plan = _plan_search(request, cluster)
        num_steps = _order(config, records).steps_for(config.search.max_samples)
        train = config.train.model_copy(update={"num_steps": num_steps})
        _say_plan(config.model_copy(update={"train": train}), records)
        levels = ", ".join(f"{rung:,}" for rung in config.search.rungs)
        say(f"trials: {config.search.num_trials} of at most {num_steps:,} steps, compared at {levels} records")
        say(f"budget: {budget(config.search)}")
        return _close(folder, records, plan, cluster, num_steps)


def budget(search: SearchConfig) -> str:
    """The most records that a search trains on, in words."""
    most = search.num_trials * search.max_samples
    parts = [f"{search.num_trials} trials x {search.max_samples:,} records at most"]
    if search.confirm:
        num_runs = NUM_ARMS * search.num_confirm_seeds
        most += num_runs * search.max_samples
        parts.append(f"{num_runs} confirming runs x {search.max_samples:,}")
    return f"{' + '.join(parts)} = {most:,} records at most"


def check_run(request: RunRequest[Config], experiment: str = "pretrain", auto_feed: Feed = "stream") -> None:
    """Raise ValueError where a run would be refused, before anything is started; on a cluster, Ray is asked later."""
    if request.address == LOCAL:
        _plan_run(request, this_machine(), experiment, auto_feed)


def check_search(request: RunRequest[SearchRunConfig]) -> None:
    """Raise ValueError where a search would be refused, as `check_run` does."""
    if request.address == LOCAL:
        _plan_search(request, this_machine())


def _plan_run(
    request: RunRequest[Config], cluster: Cluster, experiment: str, auto_feed: Feed
) -> tuple[RunFolder, Config, _Records, WorkerPlan]:
    folder, config, records = _open(request, cluster, experiment, auto_feed=auto_feed)
    streams = config.feed.kind == "stream"
    plan = plan_run(cluster, request.num_workers, streams=streams, min_workers=request.min_workers)
    return folder, config, records, plan


def _plan_search(
    request: RunRequest[SearchRunConfig], cluster: Cluster
) -> tuple[RunFolder, SearchRunConfig, _Records, WorkerPlan]:
    folder, config, records = _open(request, cluster, "tune_mam", auto_feed="resident")
    streams = config.feed.kind == "stream"
    search = config.search
    plan = plan_search(
        cluster,
        max_concurrent=search.max_concurrent_trials,
        streams=streams,
        num_workers=search.workers_per_trial,
        gpus_per_trial=search.gpus_per_trial,
    )
    return folder, config, records, plan


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Cluster]:
    if address == LOCAL:
        yield this_machine()
    else:
        with connect(address, dashboard=False) as cluster:
            yield cluster


def _open(
    request: RunRequest[Config], cluster: Cluster, experiment: str, *, auto_feed: Feed
) -> tuple[RunFolder, Config, _Records]:
    """The folder, the resolved config and the records that a run would have; raises as the run would."""
    folder = describe_folder(request.out, experiment, resume=request.resume, overwrite=request.overwrite)
    check_places(request.data, request.out, cluster)
    config = config_of(request, cluster, folder)
    if request.resume and is_prepared(request.data):
        check_same_set(folder, PreparedSet.open(request.data))
    if config.model.bert_checkpoint is not None:
        weights_file(Path(config.model.bert_checkpoint))
    records = _records_of(request.data, config)
    needed = resident_bytes(records.num_train, records.shape.image_size, records.shape.max_tokens)
    streams = streams_records(config, needed, cluster, auto_feed)
    feed = config.feed.model_copy(update={"kind": "stream" if streams else "resident"})
    return folder, config.model_copy(update={"prepare": records.prepare, "feed": feed}), records


def _say_plan(config: PretrainConfig, records: _Records) -> None:
    say(config_text(config).rstrip())
    say(f"records: {records.line}")
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in MlimModel(records.shape).parameters())
    shape = records.shape
    say(
        f"model: {config.model.size}, {num_parameters:,} parameters, {shape.image_size} px, {shape.num_cells} cells, "
        f"width {shape.hidden_size}, {shape.num_hidden_layers} layers"
    )
    for stage in stages_of(config.resolution, config.train.num_steps, shape):
        say(f"pictures: {stage.image_size} px, {stage.num_cells} cells before step {stage.stop_step:,}")


def _records_of(data: str, config: PretrainConfig) -> _Records:
    if is_prepared(data):
        prepared = PreparedSet.open(data)
        prepared.require(TRAIN_SPLIT, config.probe.split)
        manifest = prepared.manifest
        sizes = ", ".join(f"{name} {split.num_records:,}" for name, split in manifest.splits.items())
        return _Records(
            f"{manifest.counts.accepted:,} in {data} ({sizes})",
            prepared.num_records(TRAIN_SPLIT),
            manifest.row_group_records,
            prepared.short_groups(TRAIN_SPLIT),
            model_config(config, prepared),
            manifest.config,
        )
    assert isinstance(config.prepare.image_size, int), "sizes are resolved before a plan is made"
    prepare = resolve_prepare_config(config.prepare, config.prepare.image_size)
    source = open_source(data, prepare)
    num_records = sum(part.stop - part.start for part in source.slices())
    vocab_size = prepare.vocabulary_size
    if prepare.tokenizer is not None:
        vocab_size = load_tokenizer(storage.absolute(prepare.tokenizer)).vocab_size
    shape = MlimConfig.of(
        config.model,
        vocab_size=vocab_size,
        mask_token_id=0,
        pad_token_id=0,
        max_tokens=prepare.max_tokens,
    )
    line = f"{num_records:,} in {data} ({source.format}), about {_TRAIN_SHARE:.0%} of them for training"
    num_train = max(1, int(_TRAIN_SHARE * num_records))
    return _Records(line, num_train, row_group_records(shape.image_size), (), shape, prepare)


def _order(config: PretrainConfig, records: _Records) -> StreamOrder:
    return StreamOrder(
        records.num_train,
        records.group_records,
        config.train.batch_size,
        config.feed.num_lanes,
        config.feed.window_groups,
        config.train.seed,
        records.short_groups,
    )


def _close(
    folder: RunFolder, records: _Records, plan: WorkerPlan, cluster: Cluster, num_steps: int
) -> dict[str, object]:
    for line in plan.lines(cluster):
        say(line)
    say(f"output: {folder.path}")
    return {"dry_run": True, "out": folder.path, "steps": num_steps, "num_train_records": records.num_train}
