"""The values of an attribute that records of a source lack, told from their picture and text, with Ray Data.

Pass 0 collects the attribute's values, whose words are to be hidden. Pass 1 cleans slices of the source and shows them
to the model in actors. A classifier is fitted on the records that have the attribute, divided by the hash of their key
into those that it learns from, those that it is chosen and calibrated on, and those that it is measured on. Pass 2
fills the others. A run that was killed is continued by the same command.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.fill import FillingConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.counter import unit
from mlim_ray.data.lease import Lease
from mlim_ray.data.result_set import ResultManifest
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.staging import first_of_key
from mlim_ray.evaluation.attribute_head import AttributeHead
from mlim_ray.evaluation.filling_features import filling_features, num_features
from mlim_ray.evaluation.filling_report import Part, fit_and_report
from mlim_ray.evaluation.hidden_words import without_words, words_of
from mlim_ray.pipelines.attribute_values import values_of
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.model_pass import OnProgress
from mlim_ray.pipelines.result_job import Job
from mlim_ray.training.loaded_run import LoadedRun

if TYPE_CHECKING:
    from mlim_ray.data.records import Records

REPORT_FILE = "fill.json"
FEWEST_KNOWN = 20
"""records with the attribute that a classifier can be fitted and measured on at all (our choice)"""
_PARTS = (("train", 0.8), ("val", 0.9), ("test", 1.0))
"""upper ends of the shares of the records that have the attribute"""
_PART_COUNTER = 0xF111


@dataclass(frozen=True)
class ShowAttribute:
    """Ask the model for what an attribute is told from."""

    config: FillingConfig
    words: NDArray[np.uint64] | None = None
    """that are hidden in the texts"""

    def schema(self, width: int) -> pa.Schema:
        """The value, null where the record lacks it, and the features."""
        features = pa.list_(pa.float16(), num_features(width))
        return pa.schema([pa.field("value", pa.string()), pa.field("features", features, nullable=False)])

    def __call__(self, run: LoadedRun, records: Records, rows: pa.Table) -> list[pa.Array]:
        """Both columns."""
        if self.words is not None:
            records = without_words(records, self.words)
        features_RX = filling_features(run.model, records, EmbedConfig(batch_size=self.config.batch_size))
        limit = np.finfo(np.float16).max
        numbers = pa.array(np.clip(features_RX, -limit, limit).astype(np.float16).ravel())
        width = num_features(run.model.config.hidden_size)
        return [rows["value"], pa.FixedSizeListArray.from_arrays(numbers, width)]


def fill_job(
    run: LoadedRun, source: str, out: str, attribute: str, prepare: PrepareConfig, config: FillingConfig
) -> Job:
    """The job of filling an attribute of `source` into the folder `out`; starts nothing.

    Raises ValueError as `Job.of`, and where the source has no such attribute.
    """
    prepare = prepare.model_copy(update={"attribute_columns": (attribute,)})
    show = ShowAttribute(config)
    try:
        return Job.of("mlim_ray filled attributes", run, source, out, prepare, show, config, (REPORT_FILE,))
    except storage.StorageError:
        raise
    except ValueError as error:
        raise ValueError(str(error).replace("--attribute-columns", "--attribute")) from error


def fill(job: Job, cluster: Cluster, on_progress: OnProgress, config: FillingConfig) -> ResultManifest:
    """Write the values of a job made by `fill_job`, and how well they are told. Ray is running.

    Raises:
        ValueError: the source cannot be read, too few of its records have the attribute, or the folder is in use.
        TooManyRejected: too large a share of the records was rejected.
    """
    (attribute,) = job.source.columns.attributes
    with Lease(job.folder.path):
        job.folder.open(job.plan)
        try:
            values = values_of(job.source, job.slices, job.folder.staging, config.most_values, on_progress)
            words = words_of(values, job.run.tokenizer) if config.hides_words else None
            job = replace(job, show=ShowAttribute(config, words))
            counts = job.show_all(cluster, on_progress, "ask the model")
            head, report = fit_and_report(attribute, *_known(job.shuffle, attribute, config.num_train), seed=0)
            facts: dict[str, Any] = {
                "weights_sha256": job.run.sha256,
                **config.model_dump(mode="json"),
                **asdict(report),
            }
            manifest = job.write(counts, FillRows(head, config.all_records), facts, on_progress)
        except storage.StorageError:
            # The disk or the network failed, not the source: the same command goes on from here.
            raise
        except ValueError:
            job.folder.discard()
            raise
        content = json.dumps({"counts": manifest.counts.model_dump(), **facts}, indent=1)
        storage.write_bytes_atomically(storage.join(job.folder.path, REPORT_FILE), content.encode() + b"\n")
        job.folder.close(manifest)
    return manifest


@dataclass(frozen=True)
class FillRows:
    """The rows of a part, from staged rows."""

    head: AttributeHead
    all_records: bool

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Key, best and second-best value with their probabilities, and whether the record lacked one."""
        was_missing = pc.is_null(rows["value"])
        if not self.all_records:
            rows, was_missing = rows.filter(was_missing), was_missing.filter(was_missing)
        probability_RK = self.head.probabilities(_features(rows))
        values = pa.array(self.head.values, pa.string())
        order_RK = np.argsort(-probability_RK, axis=1, kind="stable")
        columns: dict[str, Any] = {"key": rows["key"], "value": rows["value"], "was_missing": was_missing}
        for place, name in enumerate(("predicted", "second")):
            # Of a single value there is no second.
            best_R = order_RK[:, min(place, len(self.head.values) - 1)]
            is_there = place < len(self.head.values)
            confidence_R = probability_RK[np.arange(len(best_R)), best_R]
            chosen = values.take(pa.array(best_R))
            columns[name] = chosen if is_there else pa.nulls(len(best_R), pa.string())
            shown = pa.array(confidence_R.astype(np.float32))
            columns["confidence" if place == 0 else "second_confidence"] = (
                shown if is_there else pa.nulls(len(best_R), pa.float32())
            )
        return pa.table(columns)


def _known(shuffle: Shuffle, attribute: str, num_train: int) -> tuple[Part, Part, Part]:
    """Records that have the attribute, for learning, choosing and measuring.

    Buckets are random samples of the source, so the first ones do where they hold enough.
    """
    wanted = {"train": num_train, "val": num_train // 8, "test": num_train // 8}
    found: dict[str, list[tuple[NDArray[np.float32], list[str]]]] = {name: [] for name, _ in _PARTS}
    for bucket in range(shuffle.num_buckets):
        rows = shuffle.read_bucket(bucket)
        rows = rows.filter(pa.array(first_of_key(rows)))
        rows = rows.filter(pc.is_valid(rows["value"]))
        draw_R = unit(_PART_COUNTER, rows["key_hash"].to_numpy())
        begin = 0.0
        for name, end in _PARTS:
            left = wanted[name] - sum(len(values) for _, values in found[name])
            chosen = np.flatnonzero((draw_R >= begin) & (draw_R < end))[: max(0, left)]
            part = rows.take(pa.array(chosen))
            found[name].append((_features(part), part["value"].to_pylist()))
            begin = end
        if all(sum(len(values) for _, values in found[name]) >= wanted[name] for name in wanted):
            break
    parts = []
    for name, _ in _PARTS:
        features, values = zip(*found[name], strict=True)
        parts.append((np.concatenate(features), [value for some in values for value in some]))
    num_known = sum(len(values) for _, values in parts)
    if num_known < FEWEST_KNOWN:
        raise ValueError(
            f"--attribute {attribute}: {num_known} accepted records have it, expected {FEWEST_KNOWN} or more to learn "
            "its values from and to measure by"
        )
    train, val, test = parts
    return train, val, test


def _features(rows: pa.Table) -> NDArray[np.float32]:
    column = rows["features"].combine_chunks()
    width = column.type.list_size
    numbers: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return numbers.reshape(len(rows), width)
