"""Where a run or a search stands: its prepared set, its resolved config, and the order of its records."""

import os
import posixpath
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Literal, Self, TypeVar

import yaml

from mlim_ray.config import PretrainConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import MANIFEST_FILE, manifest_sha256
from mlim_ray.data.origin import Origin
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.shard_cache import ShardCache
from mlim_ray.data.sources import open_with_files, resolve_prepare_config
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.feed import resident_bytes
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.reporting.progress import Stages, say
from mlim_ray.training.build import model_config
from mlim_ray.training.earlier_run import EarlierRun
from mlim_ray.training.environment import describe_environment
from mlim_ray.training.init_from import fit_start, has_begun
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.resolve import resolve_size
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.stream import TRAIN_SPLIT, stream_order

Config = TypeVar("Config", bound=PretrainConfig)

Feed = Literal["stream", "resident"]

_PREPARED_FOLDER = "prepared"
_STORE_SHARE_FOR_RECORDS = 0.5
# Where records are fed from, how much memory a step takes and when Ray is asked change nothing that is learned; and a
# run that a damaged shard or a gradient without a number stopped may go on without it, as its folder tells.
_MAY_CHANGE = {
    *(("feed", knob) for knob in ("kind", "on_damaged_shard", "cache_gib", "cache_folder")),
    *(("train", knob) for knob in ("micro_batch_size", "activation_checkpointing", "peak_flops", "on_non_finite")),
    ("model", "licence"),
    *(("evaluate", knob) for knob in ("every_steps", "tasks")),
    *(
        ("search", knob)
        for knob in (
            "num_trials",
            "confirm",
            "num_confirm_seeds",
            "num_retries",
            "max_concurrent_trials",
            "gpus_per_trial",
            "storage",
            "price_per_hour",
            "mlflow",
        )
    ),
    *(("train", f"{knob}_s") for knob in ("report_every", "collective_timeout", "stop_within", "resize_every")),
}


@dataclass(frozen=True)
class Setting(Generic[Config]):
    """All that is decided before workers start."""

    config: Config
    """resolved: no auto is left"""
    prepared: PreparedSet
    order: StreamOrder
    streams: bool
    """whether records are streamed; else they are resident in shared memory"""

    def with_config(self, config: Config) -> Self:
        """The same setting for another config of the same data."""
        return replace(self, config=config)

    def environment(self, request: RunRequest[Config], *, num_workers: int, threads_per_worker: int) -> dict[str, Any]:
        """The content of `environment.json`."""
        return describe_environment(
            data=request.data,
            prepared=self.prepared.path,
            manifest_sha256=manifest_sha256(self.prepared.path),
            num_workers=num_workers,
            threads_per_worker=threads_per_worker,
        )


def open_setting(
    request: RunRequest[Config], cluster: Cluster, folder: RunFolder, *, auto_feed: Feed
) -> Setting[Config]:
    """Decide every auto, and prepare the source unless an equal set lies beside the run folder already.

    Args:
        request: what was asked for.
        cluster: where it runs.
        folder: the run folder.
        auto_feed: what `feed.kind` auto stands for, if the records fit.

    Raises:
        ValueError: the source, the config and the cluster do not fit together, or a resumed run was begun otherwise.
    """
    config = config_of(request, cluster, folder)
    prepared = _prepared_set(request.data, config, folder)
    if request.resume:
        check_same_set(folder, prepared)
    prepared.require(TRAIN_SPLIT, config.probe.split)
    model_config(config, prepared)
    # The set's own config but for the paths of this machine, which a set does not hold.
    paths = {"image_folder": config.prepare.image_folder, "tokenizer": config.prepare.tokenizer}
    if paths["tokenizer"] != request.config.prepare.tokenizer:
        # Of the run that is started from, which may be gone when this one is resumed: the set has the same.
        paths["tokenizer"] = prepared.tokenizer_path
    config = config.model_copy(update={"prepare": prepared.manifest.config.model_copy(update=paths)})
    image_size, max_tokens = prepared.manifest.image.size, prepared.manifest.text.max_tokens
    needed = resident_bytes(prepared.num_records(TRAIN_SPLIT), image_size, max_tokens)
    streams = streams_records(config, needed, cluster, auto_feed)
    feed = config.feed.model_copy(update={"kind": "stream" if streams else "resident"})
    config = config.model_copy(update={"feed": feed})
    prepared = prepared.cached(ShardCache.of(config.feed))
    return Setting(config, prepared, stream_order(prepared, config.train, config.feed), streams)


def streams_records(config: PretrainConfig, needed: int, cluster: Cluster, auto_feed: Feed) -> bool:
    """Whether records are streamed: as asked for, and where auto would keep them resident but they do not fit.

    Args:
        config: its `feed.kind` is what was asked for.
        needed: bytes of the decoded training split.
        cluster: where it runs.
        auto_feed: what auto stands for, if the records fit.

    Raises:
        ValueError: they are to be resident and do not fit.
    """
    room = _STORE_SHARE_FOR_RECORDS * cluster.object_store_bytes
    if config.feed.kind == "resident" and needed > room:
        raise ValueError(
            f"--feed resident: the decoded training split takes {needed / 2**20:,.0f} MiB and the object store has "
            f"{room / 2**20:,.0f} MiB for it; use --feed stream"
        )
    if config.feed.kind == "auto":
        return auto_feed == "stream" or needed > room
    return config.feed.kind == "stream"


def config_of(request: RunRequest[Config], cluster: Cluster, folder: RunFolder) -> Config:
    """The config with its size and its start decided; of a resumed run, the one that it began with.

    Args:
        request: what was asked for.
        cluster: where it runs.
        folder: the run folder.

    Raises:
        ValueError: what is started from does not fit, or a knob differs from that of the run that is resumed.
    """
    config = _with_start(request, resolve_size(request.config, has_gpu=cluster.num_gpus >= 1), folder)
    if request.resume:
        _check_unchanged(folder, config)
    return config


def _with_start(request: RunRequest[Config], config: Config, folder: RunFolder) -> Config:
    """The config with the tokenizer of the run that is started from, where a source is still to be prepared.

    Args:
        request: what was asked for.
        config: its config, the size resolved.
        folder: the run folder; a run that was started already is past all of this.

    Raises:
        ValueError: the weights of that run do not fit the size, the set, or what is to be prepared.
    """
    if config.model.init_from is None or (request.resume and has_begun(folder)):
        return config
    prepared = PreparedSet.open(request.data) if is_prepared(request.data) else None
    return fit_start(EarlierRun(config.model.init_from), config, prepared)


def check_places(data: str, out: str | None, cluster: Cluster) -> None:
    """On more than one node, source and results must lie where every node sees them.

    Raises:
        ValueError: a path is local and the cluster has several nodes.
    """
    if cluster.num_nodes < 2:
        return
    if not data.startswith("generated:") and not storage.is_remote(data):
        raise ValueError(
            f"--data {data} is local and the cluster has {cluster.num_nodes} nodes that cannot all read it; "
            "copy it to S3 and give --data s3://..."
        )
    if out is None or not storage.is_remote(out):
        raise ValueError(
            f"--out {out or 'not given'}: results would be local and the cluster has {cluster.num_nodes} nodes; "
            "give --out s3://..."
        )


def is_prepared(data: str) -> bool:
    """Whether a source is a prepared set."""
    return not data.startswith("generated:") and storage.exists(storage.join(data, MANIFEST_FILE))


def prepared_path(data: str, origin: Origin, run: str) -> str:
    """Where the prepared set of a raw source lies: beside the run folder, for all runs there to share."""
    return storage.join(_parent(run), _PREPARED_FOLDER, f"{_stem(data)}-{origin.identity[:8]}")


def check_same_set(folder: RunFolder, prepared: PreparedSet) -> None:
    """A resumed run goes on with the records it began with: the manifest's sha256 stands for every byte of them.

    Raises:
        ValueError: the prepared set is another one than the run in `folder` was started on.
    """
    if not storage.exists(folder.file("environment.json")):
        # It was killed before its first step.
        return
    environment = folder.read_json("environment.json")
    # An experiment on several sets has a folder for each below its own.
    if "manifest_sha256" not in environment:
        return
    if environment["manifest_sha256"] != manifest_sha256(prepared.path):
        raise ValueError(
            f"--resume: the run in {folder.path} was started on another state of the set {prepared.path}; restore the "
            "set as it was, or start a new run with another --out"
        )


def _check_unchanged(folder: RunFolder, config: PretrainConfig) -> None:
    """A resumed run learns what it began to learn.

    Raises:
        ValueError: a knob differs from the one that the run in `folder` was started with.
    """
    stored = yaml.safe_load(storage.read_bytes(folder.file("config.yaml")))
    # A knob that came after the run was begun stood at its default.
    defaults = type(config)().model_dump(mode="json")
    for section, knobs in config.model_dump(mode="json").items():
        for knob, value in knobs.items():
            before = stored.get(section, {}).get(knob, defaults[section].get(knob))
            if (section, knob) not in _MAY_CHANGE and before != value:
                flag = f"--{section}.{knob}".replace("_", "-")
                raise ValueError(
                    f"{flag}: the run in {folder.path} was started with {before} and is asked to resume with {value}; "
                    "leave the flag out, or start a new run with another --out"
                )


def _prepared_set(data: str, config: PretrainConfig, folder: RunFolder) -> PreparedSet:
    if is_prepared(data):
        # Workers of a Ray that was joined have another working folder.
        return PreparedSet.open(data if storage.is_remote(data) else os.path.abspath(data))
    assert isinstance(config.prepare.image_size, int), "sizes are resolved before a source is opened"
    prepare_config = resolve_prepare_config(config.prepare, config.prepare.image_size)
    origin = Origin.of(open_with_files(data, prepare_config), prepare_config, keep_rejected=False)
    out = prepared_path(data, origin, folder.path)
    if is_prepared(out):
        say(f"prepared set: {out} (as it was)")
    else:
        with Stages("records") as stages:
            prepare(data, out, prepare_config, on_progress=partial(stages.advance, "prepare"))
        say(f"prepared set: {out}")
    return PreparedSet.open(out)


def ray_folder(folder: RunFolder) -> str:
    """Where Ray keeps its own files: inside the run folder, and nothing of ours needs them."""
    path = folder.file(".ray")
    return path if storage.is_remote(path) else os.path.abspath(path)


def _parent(path: str) -> str:
    return posixpath.dirname(path) if storage.is_remote(path) else os.path.dirname(os.path.abspath(path))


def _stem(data: str) -> str:
    """A short readable name for a source."""
    name = posixpath.basename(data.rstrip("/").replace(":", "-"))
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.rpartition(".")[0] or name) or "source"
