"""A source, a model, and a folder for what comes of them: what `embed` and `fill` have in common."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from mlim_ray.config.base import Section
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.destination import check_apart
from mlim_ray.data.manifest import StoredFile, library_versions
from mlim_ray.data.origin import Origin
from mlim_ray.data.quarantine import gather_quarantine, read_quarantine, write_quarantine
from mlim_ray.data.rejection import Reason, Stage
from mlim_ray.data.result_set import Format, Part, ResultCounts, ResultFolder, ResultManifest, write_part
from mlim_ray.data.shards import Duplicates, duplicates_path
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import Slice, Source, open_with_files
from mlim_ray.data.sources.source import source_label
from mlim_ray.data.task_sizes import source_slices
from mlim_ray.pipelines.actor_map import plan_actors
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.model_pass import ModelPass, OnProgress, Show, staged_schema
from mlim_ray.pipelines.ordered_map import map_in_order
from mlim_ray.pipelines.preparation import SourceCounts, regroup
from mlim_ray.pipelines.prepare_tasks import once
from mlim_ray.training.loaded_run import LoadedRun

_PART_BYTES = 64_000_000
"""of rows in a part; a task of the second pass holds them a few times over"""
_PLACE_BYTES = 100
"""what says which record a row is"""

Finish = Callable[[pa.Table], pa.Table]
"""from the staged rows of some records to the rows of a part"""


@dataclass(frozen=True)
class WriteBucket:
    """Write one part: of records with one key the first, the others to the quarantine."""

    shuffle: Shuffle
    out: str
    finish: Finish

    def __call__(self, bucket: int) -> str:
        return once(storage.join(self.shuffle.staging, f"bucket-{bucket:06d}.json"), lambda: self._write(bucket))

    def part_schema(self) -> dict[str, str]:
        """Column to type."""
        return {field.name: str(field.type) for field in self.finish(self.shuffle.schema.empty_table()).schema}

    def _write(self, bucket: int) -> dict[str, Any]:
        table = self.shuffle.read_bucket(bucket)
        duplicates = Duplicates.of(table, None)
        kept = table.filter(pa.array(duplicates.is_kept))
        if len(kept) < len(table):
            write_quarantine(duplicates_path(self.shuffle.staging, bucket), duplicates.rows())
        rows = self.finish(kept)
        part = write_part(self.out, bucket, rows).model_dump() if len(rows) else None
        return {"part": part, "num_kept": len(kept), "num_duplicates": len(table) - len(kept)}


@dataclass(frozen=True)
class Job:
    """What a command was asked for."""

    format: Format
    run: LoadedRun
    source: Source
    config: PrepareConfig
    """resolved, with pictures stored raw"""
    show: Show
    folder: ResultFolder
    plan: str
    """hash of what decides the rows"""

    @classmethod
    def of(
        cls,
        format: Format,
        run: LoadedRun,
        source: str,
        out: str,
        config: PrepareConfig,
        show: Show,
        knobs: Section,
        other_files: tuple[str, ...] = (),
    ) -> Job:
        """Open the source. Raises ValueError if it cannot be read, or `out` lies inside of it."""
        config = for_model(config, run)
        opened = open_with_files(source, config)
        out = storage.absolute(out)
        check_apart(source, out)
        origin = Origin.of(opened, config, keep_rejected=False)
        decides = [format, origin.identity, run.sha256, knobs.model_dump(mode="json"), libraries()]
        plan = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        return cls(format, run, opened.source, config, show, ResultFolder(out, format, other_files), plan)

    @property
    def slices(self) -> list[Slice]:
        """Pieces of the first pass."""
        return source_slices(self.source, self._rules)

    @property
    def schema(self) -> pa.Schema:
        """Of the rows between the passes."""
        return staged_schema(self.show, self.run.model.config.hidden_size)

    @property
    def num_buckets(self) -> int:
        """Parts that are written."""
        num_records = sum(part.stop - part.start for part in self.slices)
        widths = [
            kind.list_size * kind.value_type.bit_width // 8 for kind in self.schema.types if pa.types.is_nested(kind)
        ]
        return max(1, -(-num_records * (_PLACE_BYTES + sum(widths)) // _PART_BYTES))

    def show_all(self, cluster: Cluster, on_progress: OnProgress, what: str) -> SourceCounts:
        """The first pass, after which buckets can be read. Raises as `ModelPass.go` does."""
        slices, shuffle = self.slices, self.shuffle
        passing = ModelPass(
            self.source,
            slices,
            self._rules,
            self.config.max_rejected_ratio,
            self.run,
            self.show,
            self.folder.path,
            shuffle,
        )
        num_bytes = sum(weight.numel() * weight.element_size() for weight in self.run.model.parameters())
        counts = passing.go(plan_actors(cluster, len(slices), num_bytes), on_progress, what)
        regroup(shuffle)
        return counts

    def write(
        self, counts: SourceCounts, finish: Finish, facts: dict[str, Any], on_progress: OnProgress
    ) -> ResultManifest:
        """The second pass; gives the manifest, which is not written yet."""
        staging = self.folder.staging
        parts: list[Part] = []
        duplicates: list[str] = []
        num_kept = num_duplicates = 0
        shuffle = self.shuffle
        work = WriteBucket(shuffle, self.folder.path, finish)
        for bucket, result in enumerate(map_in_order(work, shuffle.num_buckets)):
            found = json.loads(result)
            if found["part"] is not None:
                parts.append(Part(**found["part"]))
            if found["num_duplicates"]:
                duplicates.append(duplicates_path(staging, bucket))
            num_kept += found["num_kept"]
            num_duplicates += found["num_duplicates"]
            on_progress("write", num_kept + num_duplicates, counts.accepted)
        quarantine, reasons = self._quarantine(counts, duplicates)
        return ResultManifest(
            format=self.format,
            plan=self.plan,
            source=source_label(self.source.name),
            columns=self.source.columns.by_role(),
            counts=_account(counts, num_kept, reasons),
            part_schema=work.part_schema(),
            parts=tuple(parts),
            quarantine=tuple(quarantine),
            facts=facts,
            libraries=libraries(),
        )

    def _quarantine(self, counts: SourceCounts, duplicates: list[str]) -> tuple[list[StoredFile], Counter[str]]:
        reasons: Counter[str] = Counter()
        files: list[StoredFile] = []
        for stage, paths in ((Stage.CLEAN, counts.rejected_paths), (Stage.DEDUPLICATE, duplicates)):
            for table in read_quarantine(paths):
                reasons.update(table["reason"].to_pylist())
            files += gather_quarantine(read_quarantine(paths), self.folder.path, stage.value)
        return files, reasons

    @property
    def shuffle(self) -> Shuffle:
        """What the first pass left, or will leave."""
        return Shuffle.plan(self.folder.staging, len(self.slices), self.num_buckets, self.schema)

    @property
    def _rules(self) -> CleaningRules:
        return CleaningRules.of(self.config, self.source.columns.split is not None)


def for_model(config: PrepareConfig, run: LoadedRun) -> PrepareConfig:
    """A config whose pictures and texts are what the run's model takes, pictures as they are after cleaning."""
    shape = run.model.config
    return config.model_copy(
        update={"image_size": shape.image_size, "image_encoding": "raw", "max_tokens": shape.max_tokens}
    )


def check_places(source: str, out: str, cluster: Cluster) -> None:
    """On more than one node, source and results must lie where every node sees them.

    Raises:
        ValueError: a path is local and the cluster has several nodes.
    """
    for name, path in (("SOURCE", source), ("OUT", out)):
        if cluster.num_nodes > 1 and not path.startswith("generated:") and not storage.is_remote(path):
            raise ValueError(
                f"{name}: {path} is local and the cluster has {cluster.num_nodes} nodes that cannot all reach it; "
                "give one in S3, s3://..."
            )


def libraries() -> dict[str, str]:
    """The versions of what the rows depend on."""
    return library_versions() | {"torch": version("torch")}


def _account(counts: SourceCounts, num_kept: int, reasons: Counter[str]) -> ResultCounts:
    """Raises RuntimeError where the files do not hold what was counted."""
    duplicates = reasons[Reason.DUPLICATE_KEY.value]
    found = ResultCounts(
        read=counts.read,
        accepted=num_kept,
        rejected=reasons.total() - duplicates,
        duplicates=duplicates,
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )
    if found.read != found.accepted + found.rejected + found.duplicates:
        raise RuntimeError(f"a record was lost: {found}")
    return found
