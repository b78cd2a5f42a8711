"""What `prepare` tells of a set: of one that it made, and of one that was there already."""

from __future__ import annotations

from dataclasses import dataclass

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.destination import STAGING_FOLDER, check_apart, close_destination, present_set
from mlim_ray.data.lease import Lease
from mlim_ray.data.manifest import Manifest, read_manifest
from mlim_ray.data.origin import Origin, read_origin
from mlim_ray.data.sources import open_new_files, open_with_files


@dataclass(frozen=True)
class PrepareSummary:
    """What became of every record of the set: read = accepted + rejected + duplicates."""

    source: str
    out: str
    read: int
    accepted: int
    rejected: int
    duplicates: int
    cut_texts: int
    reasons: dict[str, int]
    """rejected and duplicate records by reason, the commonest first"""
    splits: dict[str, int]
    columns: dict[str, str]
    """role to column"""
    generations: int
    newly_accepted: int
    """records that this run added"""
    already_prepared: bool
    continued: bool = False
    """whether an earlier start of the same run had been stopped"""


def present_summary(
    source: str, out: str, config: PrepareConfig, *, keep_rejected: bool = False
) -> PrepareSummary | None:
    """What `prepare` gives where the set of this source and config is in `out` already, else None; needs no Ray.

    Raises ValueError as `prepare` does.
    """
    opened = open_with_files(source, config)
    out = storage.absolute(out)
    check_apart(source, out)
    return present_in(out, Origin.of(opened, config, keep_rejected=keep_rejected))


def nothing_new(source: str, out: str, config: PrepareConfig) -> PrepareSummary | None:
    """What `append` gives where the set in `out` was made from all files of `source`, else None; needs no Ray.

    Raises ValueError as `append` does for a source that cannot be read.
    """
    out = storage.absolute(out)
    manifest = read_manifest(out)
    known = read_origin(out, len(manifest.generations)).files
    if open_new_files(source, config, known) is not None:
        return None
    return summary_of(manifest, out, newly_accepted=0, already_prepared=True)


def present_in(out: str, origin: Origin) -> PrepareSummary | None:
    """The summary of the set in `out` if it was made from `origin`, else None; raises as `present_set` does."""
    manifest = present_set(out, origin)
    if manifest is None:
        return None
    if storage.exists(storage.join(out, STAGING_FOLDER)):
        # A run was killed after its last act, the manifest.
        with Lease(out):
            close_destination(out, manifest)
    return summary_of(manifest, out, newly_accepted=0, already_prepared=True)


def summary_of(manifest: Manifest, out: str, *, newly_accepted: int, already_prepared: bool) -> PrepareSummary:
    """What a set's manifest says, for a person."""
    counts = manifest.counts
    return PrepareSummary(
        source=manifest.generations[0].source,
        out=out,
        read=counts.read,
        accepted=counts.accepted,
        rejected=counts.rejected,
        duplicates=counts.duplicates,
        cut_texts=counts.cut_texts,
        reasons=counts.reasons,
        splits={name: split.num_records for name, split in manifest.splits.items()},
        columns=manifest.columns,
        generations=len(manifest.generations),
        newly_accepted=newly_accepted,
        already_prepared=already_prepared,
    )
