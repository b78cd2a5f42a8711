"""What `--dry-run` prints: the resolved config and the arithmetic, from the source's own description.

Nothing is prepared, written or started; a Ray at an `--address` is asked for its resources.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from mlim_ray.config import PretrainConfig, SearchRunConfig
from mlim_ray.config.files import config_text
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.pipelines.cluster import LOCAL, Cluster, connect, this_machine
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.resources import WorkerPlan, plan_run, plan_search
from mlim_ray.pipelines.setting import check_places, is_prepared
from mlim_ray.reporting.progress import say
from mlim_ray.training.build import model_config
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.resolve import resolve_size
from mlim_ray.training.run_folder import describe_folder
from mlim_ray.training.stream import TRAIN_SPLIT

_TRAIN_SHARE = 0.8

Config = TypeVar("Config", bound=PretrainConfig)


@dataclass(frozen=True)
class _Records:
    """What is known of the records without preparing them."""

    line: str
    num_train: int
    group_records: int
    shape: MlimConfig


def describe_run(request: RunRequest[PretrainConfig]) -> dict[str, object]:
    """Print the plan of a pre-training run; gives its figures."""
    with _cluster(request.address) as cluster:
        config = resolve_size(request.config, has_gpu=cluster.num_gpus >= 1)
        plan = plan_run(cluster, request.num_workers, streams=config.feed.kind != "resident")
        records = _describe(request, config, cluster)
        order = _order(config, records)
        num_steps = config.train.num_steps
        say(f"steps: {num_steps:,} of {config.train.batch_size} records = {order.samples_at(num_steps):,} records")
        return _close(request, config, records, plan, cluster, "pretrain", num_steps)


def describe_search(request: RunRequest[SearchRunConfig]) -> dict[str, object]:
    """Print the plan of a search; gives its figures."""
    with _cluster(request.address) as cluster:
        config = resolve_size(request.config, has_gpu=cluster.num_gpus >= 1)
        plan = plan_search(
            cluster, max_concurrent=config.search.max_concurrent_trials, streams=config.feed.kind == "stream"
        )
        records = _describe(request, config, cluster)
        num_steps = _order(config, records).steps_for(config.search.max_samples)
        levels = ", ".join(f"{rung:,}" for rung in config.search.rungs)
        say(f"trials: {config.search.num_trials} of at most {num_steps:,} steps, compared at {levels} records")
        return _close(request, config, records, plan, cluster, "tune_mam", num_steps)


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Cluster]:
    if address == LOCAL:
        yield this_machine()
    else:
        with connect(address, dashboard=False) as cluster:
            yield cluster


def _describe(request: RunRequest[Config], config: PretrainConfig, cluster: Cluster) -> _Records:
    check_places(request.data, request.out, cluster)
    say(config_text(config).rstrip())
    records = _records_of(request.data, config)
    say(f"records: {records.line}")
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in MlimModel(records.shape).parameters())
    shape = records.shape
    say(
        f"model: {config.model.size}, {num_parameters:,} parameters, {shape.image_size} px, {shape.num_cells} cells, "
        f"width {shape.hidden_size}, {shape.num_hidden_layers} layers"
    )
    return records


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
            model_config(config, prepared),
        )
    assert isinstance(config.prepare.image_size, int), "sizes are resolved before a plan is made"
    source = open_source(data, resolve_prepare_config(config.prepare, config.prepare.image_size))
    num_records = sum(part.stop - part.start for part in source.slices())
    shape = MlimConfig.for_size(
        config.model.size,  # type: ignore[arg-type]
        vocab_size=config.prepare.vocabulary_size,
        mask_token_id=0,
        pad_token_id=0,
        max_tokens=config.prepare.max_tokens,
    )
    line = f"{num_records:,} in {data} ({source.format}), about {_TRAIN_SHARE:.0%} of them for training"
    return _Records(line, max(1, int(_TRAIN_SHARE * num_records)), 64, shape)


def _order(config: PretrainConfig, records: _Records) -> StreamOrder:
    return StreamOrder(
        records.num_train,
        records.group_records,
        config.train.batch_size,
        config.feed.num_lanes,
        config.feed.window_groups,
        config.train.seed,
    )


def _close(
    request: RunRequest[Config],
    config: Config,
    records: _Records,
    plan: WorkerPlan,
    cluster: Cluster,
    experiment: str,
    num_steps: int,
) -> dict[str, object]:
    for line in plan.lines(cluster):
        say(line)
    out = describe_folder(request.out, experiment)
    say(f"output: {out}")
    return {"dry_run": True, "out": out, "steps": num_steps, "num_train_records": records.num_train}
