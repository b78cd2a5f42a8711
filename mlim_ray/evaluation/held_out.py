"""The held-out records that a model is measured on, read once from a prepared set."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.config import ProbeConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, Records, decode_records
from mlim_ray.evaluation.limits import ProbeLimits, probe_limits
from mlim_ray.evaluation.partner_probe import ProbeSet, make_probe_set
from mlim_ray.training.stream import TRAIN_SPLIT


@dataclass(frozen=True)
class LabelledRecords:
    """Records with their label; the two sets of a probe share no record."""

    records: Records
    labels: NDArray[np.str_]


@dataclass(frozen=True)
class HeldOut:
    """Everything that a model is measured with."""

    probe: ProbeSet
    split: str
    texts: list[str]
    """titles of the probe's records"""
    labelled_train: LabelledRecords | None
    """None where the set has no label column, or a single label"""
    labelled_held_out: LabelledRecords | None
    vocab_size: int


def load_probe_set(prepared: PreparedSet, config: ProbeConfig, num_cells: int) -> ProbeSet:
    """The partner probe's records alone: all that a search needs between rungs."""
    return _probe_set(prepared, _held_out_table(prepared, config, COLUMNS), config, num_cells)


def load_held_out(
    prepared: PreparedSet, config: ProbeConfig, num_cells: int, *, skips_damaged: bool = False
) -> HeldOut:
    """Records, titles and labels for all probes.

    With `skips_damaged` the linear probe trains without the damaged row groups of the training split. Held-out records
    are never left out: scores over others do not compare.

    Raises:
        ValueError: the held-out split has fewer than two records, or damaged ones.
    """
    table = _held_out_table(prepared, config, (*COLUMNS, "text", "label"))
    probe = _probe_set(prepared, table, config, num_cells)
    train_table = prepared.read(
        TRAIN_SPLIT, (*COLUMNS, "label"), limit=config.linear_train_records, skips_damaged=skips_damaged
    )
    labelled_train = _labelled(train_table, decode_records(train_table, prepared.manifest))
    labelled_held_out = _labelled(table, probe.records)
    has_labels = labelled_train is not None and labelled_held_out is not None
    return HeldOut(
        probe,
        config.split,
        table["text"].to_pylist(),
        labelled_train if has_labels else None,
        labelled_held_out if has_labels else None,
        prepared.manifest.text.vocab_size,
    )


def limits_of(prepared: PreparedSet, held_out: HeldOut) -> ProbeLimits | None:
    """Limits of the probe; None unless the records come from the generated catalogue."""
    return probe_limits(held_out.probe, held_out.texts) if prepared.manifest.generated else None


def _held_out_table(prepared: PreparedSet, config: ProbeConfig, columns: tuple[str, ...]) -> pa.Table:
    num_records = prepared.num_records(config.split)
    if num_records < 2:
        raise ValueError(
            f"the {config.split} split has {num_records} records and the probe needs 2 or more; name another with "
            "--probe.split, or prepare without --split-column to have the records split 80/10/10"
        )
    return prepared.read(config.split, columns, limit=config.num_records)


def _probe_set(prepared: PreparedSet, table: pa.Table, config: ProbeConfig, num_cells: int) -> ProbeSet:
    statistics = prepared.manifest.statistics
    return make_probe_set(
        decode_records(table, prepared.manifest),
        num_cells=num_cells,
        seed=config.seed,
        unigram_entropy=statistics.unigram_entropy,
        pixel_variance=statistics.pixel_variance,
    )


def _labelled(table: pa.Table, records: Records) -> LabelledRecords | None:
    labels = table["label"].to_numpy(zero_copy_only=False)
    has_label = np.array([label is not None for label in labels])
    if len(set(labels[has_label])) < 2:
        return None
    return LabelledRecords(records.take(np.flatnonzero(has_label)), labels[has_label].astype(str))
