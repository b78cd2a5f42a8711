"""From raw records to a prepared set: two passes of Ray Data over the source (contract C4).

Pass 1 cleans slices of the source and lays the accepted records down by bucket (a range of key hashes). Between the
passes the vocabulary is trained on the words of the training split. Pass 2 sorts each bucket, drops duplicates,
splits texts into pieces and writes shards. What is written depends on the source and the config alone, not on how the
work was spread; a run that was killed is continued by the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace

import ray

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.destination import (
    STAGING_FOLDER,
    check_apart,
    close_destination,
    open_destination,
    refuse_foreign,
)
from mlim_ray.data.lease import Lease
from mlim_ray.data.manifest import Manifest, library_versions, manifest_sha256, read_manifest, write_manifest
from mlim_ray.data.origin import Origin, no_files, portable, read_origin, write_origin
from mlim_ray.data.requeue import open_repaired
from mlim_ray.data.sources import Opened, open_new_files, open_with_files
from mlim_ray.data.summary import PrepareSummary, present_in, summary_of
from mlim_ray.pipelines.preparation import Addition, Preparation

OnProgress = Callable[[int, int], None]

_FIXED_KNOBS = frozenset({"image_size", "image_encoding", "max_tokens", "vocabulary_size", "attribute_columns"})
"""what all records of a set share, however they are cleaned"""


def prepare(
    source: str,
    out: str,
    config: PrepareConfig,
    *,
    overwrite: bool = False,
    keep_rejected: bool = False,
    on_progress: OnProgress | None = None,
) -> PrepareSummary:
    """Prepare `source` into the folder `out`, local or in S3. Ray is running; `config` is resolved.

    If `out` holds the set of the same source and config, nothing is done; if it holds what a killed run of the same
    left, the run is continued there.

    Args:
        source: what `open_source` takes.
        out: a new or empty folder, or one that `prepare` has written to.
        config: columns, cleaning, picture size, vocabulary.
        overwrite: replace another set in `out`.
        keep_rejected: keep the original bytes of rejected records in the quarantine.
        on_progress: told how many records of how many are read.

    Raises:
        ValueError: the source cannot be read, `out` holds something else, or Ray is not running.
        TooManyRejected: too large a share of the records was rejected.
    """
    opened = open_with_files(source, config)
    out = storage.absolute(out)
    check_apart(source, out)
    origin = Origin.of(opened, config, keep_rejected=keep_rejected)
    if not overwrite:
        present = present_in(out, origin)
        if present is not None:
            return present
    addition = Addition("prepare", opened.source, out, config, keep_rejected)
    return _run(addition, origin, on_progress, plan=origin.identity, keep_set=False)


def append(source: str, out: str, config: PrepareConfig, *, on_progress: OnProgress | None = None) -> PrepareSummary:
    """Add the files of `source` that the set in `out` was not made from yet; its shards are left as they are.

    The vocabulary, the statistics and the config stay the set's. A key that the set has already is a duplicate.

    Raises:
        ValueError: as `prepare`; `out` holds no set, one with another config, or one made from an earlier state of
            one of the files.
    """
    out = storage.absolute(out)
    check_apart(source, out)
    manifest = read_manifest(out)
    _check_same_config(manifest, config, out, set(PrepareConfig.model_fields) - {"max_rejected_ratio"})
    before = read_origin(out, len(manifest.generations))
    opened = open_new_files(source, config, before.files)
    if opened is None:
        return summary_of(manifest, out, newly_accepted=0, already_prepared=True)
    columns = opened.source.columns.by_role()
    if columns != manifest.columns:
        raise ValueError(
            f"{source} has the columns {columns} and the set in {out} was made from "
            f"{manifest.columns}; name the same columns, or prepare another set"
        )
    addition = Addition("append", opened.source, out, config, manifest.keeps_rejected, manifest)
    origin = Origin.of(opened, config, keep_rejected=manifest.keeps_rejected)
    return _run(addition, origin, on_progress, plan=f"{origin.identity} onto {manifest_sha256(out)}", keep_set=True)


def requeue(
    out: str, repaired: str | None, config: PrepareConfig, *, on_progress: OnProgress | None = None
) -> PrepareSummary:
    """Clean rejected records of the set in `out` again, and add those that are accepted now.

    Args:
        out: the set.
        repaired: Parquet file or folder with repaired rows of the quarantine, or any source whose records have the
            keys of rejected ones; None takes the quarantine's own rows, for another config.
        config: how to clean; sizes, vocabulary and columns are the set's.
        on_progress: as for `prepare`.

    Raises:
        ValueError: there is no set, or a repaired row is about no record of its quarantine.
    """
    out = storage.absolute(out)
    manifest = read_manifest(out)
    _check_same_config(manifest, config, out, _FIXED_KNOBS)
    found = open_repaired(out, manifest, repaired, config)
    config = config.model_copy(update={"max_rejected_ratio": 1.0})
    addition = Addition("requeue", found.source, out, config, manifest.keeps_rejected, manifest, found.places)
    stamps = Origin.of(Opened(found.source, no_files()), config, keep_rejected=manifest.keeps_rejected)
    plan = f"{stamps.identity} of {found.source.identity} onto {manifest_sha256(out)}"
    # Repaired records are no files of the source.
    return _run(addition, Origin("", "", no_files()), on_progress, plan=plan, keep_set=True)


def _run(
    addition: Addition, origin: Origin, on_progress: OnProgress | None, *, plan: str, keep_set: bool
) -> PrepareSummary:
    if not ray.is_initialized():
        raise ValueError("Ray is not running; call ray.init() before prepare()")
    out = addition.out
    staging = storage.join(out, STAGING_FOLDER)
    refuse_foreign(out)
    with Lease(out):
        # What other versions left is not gone on with: the bytes may differ.
        continued = open_destination(out, f"{plan} with {library_versions()}", keep_set=keep_set)
        try:
            manifest = Preparation(addition, staging, on_progress).run()
        except storage.StorageError:
            # The disk or the network failed, not the source: the same command goes on from here.
            raise
        except ValueError:
            storage.remove_tree(staging)
            raise
        write_origin(out, len(manifest.generations) - 1, origin)
        write_manifest(out, manifest)
        close_destination(out, manifest)
    summary = summary_of(manifest, out, newly_accepted=manifest.generations[-1].accepted, already_prepared=False)
    return replace(summary, continued=continued)


def _check_same_config(manifest: Manifest, config: PrepareConfig, out: str, knobs: Set[str]) -> None:
    given, stored = portable(config).model_dump(), manifest.config.model_dump()
    for knob, value in given.items():
        if knob in knobs and value != stored[knob]:
            raise ValueError(
                f"--{knob.replace('_', '-')}: given {value}, and the set in {out} was prepared with {stored[knob]}; "
                "leave it out, or prepare another set"
            )
