"""The first pass of `embed` and `fill`: every slice of a source is cleaned and shown to the model.

What the model makes of a slice goes to the staging folder, by bucket (a range of key hashes), its counts as the last
act; so a run that was killed goes on from the slices that are there. What is written depends on the slice alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import ray

from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.model_rows import PLACE_FIELDS, SCHEMA, read_rows, to_records
from mlim_ray.data.quarantine import gather_quarantine, read_quarantine, write_quarantine
from mlim_ray.data.rejection import Stage
from mlim_ray.data.result_set import QUARANTINE_FOLDER
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import Slice, Source
from mlim_ray.pipelines.actor_map import ActorPlan, ModelWork, map_on_actors
from mlim_ray.pipelines.preparation import FIRST_JUDGEMENT_RECORDS, SourceCounts, TooManyRejected
from mlim_ray.pipelines.prepare_tasks import rejected_path

if TYPE_CHECKING:
    from mlim_ray.data.records import Records
    from mlim_ray.training.loaded_run import LoadedRun

_COUNTS = b"counts"
OnProgress = Callable[[str, int, int], None]
"""told what is being done, and how many records of how many are through it"""


class Show(Protocol):
    """What is asked of the model; travels to the actors."""

    def schema(self, width: int) -> pa.Schema:
        """The columns that come of it, for a model of this width."""

    def __call__(self, run: LoadedRun, records: Records, rows: pa.Table) -> list[pa.Array]:
        """The columns for some records, given also as rows of `model_rows.SCHEMA`."""


@dataclass(frozen=True)
class ModelPass:
    """One pass over a source."""

    source: Source
    slices: list[Slice]
    rules: CleaningRules
    max_rejected_ratio: float
    run: LoadedRun
    show: Show
    out: str
    shuffle: Shuffle

    @property
    def num_records(self) -> int:
        """Records of the source."""
        return sum(part.stop - part.start for part in self.slices)

    @property
    def staging(self) -> str:
        """The folder of what waits."""
        return self.shuffle.staging

    def todo(self) -> list[int]:
        """The slices that have left no counts yet."""
        names = set(storage.list_names(self.staging))
        return [number for number in range(len(self.slices)) if _result_name(number) not in names]

    def go(self, plan: ActorPlan, on_progress: OnProgress, what: str) -> SourceCounts:
        """Do what is left to do of it.

        Raises:
            TooManyRejected: too large a share of the records was rejected; the quarantine is written.
            ValueError: a file cannot be read, or the source changed meanwhile.
        """
        todo = self.todo()
        results = {number: storage.read_bytes(self._result(number)).decode() for number in self._others(todo)}
        counts = self._counts(results)
        judged = counts.read >= FIRST_JUDGEMENT_RECORDS
        first = CleanSlices(self.source, self.slices, self.rules, self.staging)
        start = StartShowing(ray.put(self.run), self.show, self.shuffle)
        arriving = map_on_actors(ModelWork(first, start), todo, plan)
        for number, result in zip(todo, arriving, strict=True):
            results[number] = result
            _add(counts, json.loads(result))
            on_progress(what, counts.read, self.num_records)
            if not judged and counts.read >= FIRST_JUDGEMENT_RECORDS:
                judged = True
                if self._too_many(counts):
                    break
        arriving.close()
        counts = self._counts(results)
        self._judge(counts)
        return counts

    def _judge(self, counts: SourceCounts) -> None:
        if counts.read != counts.accepted + counts.rejected:
            raise RuntimeError(f"{counts.read} records read, {counts.accepted} + {counts.rejected} accounted for")
        quarantine = storage.join(self.out, QUARANTINE_FOLDER)
        if self._too_many(counts):
            gather_quarantine(read_quarantine(counts.rejected_paths), self.out, Stage.CLEAN.value)
            raise TooManyRejected(self.source.name, quarantine, counts, self.max_rejected_ratio)
        if counts.read != self.num_records:
            raise ValueError(
                f"{self.source.name} held {self.num_records} records at first and {counts.read} when read; "
                "start again once nothing writes to it"
            )

    def _too_many(self, counts: SourceCounts) -> bool:
        return counts.rejected > self.max_rejected_ratio * counts.read

    def _counts(self, results: dict[int, str]) -> SourceCounts:
        """In the order of the slices."""
        counts = SourceCounts()
        for number in sorted(results):
            found = json.loads(results[number])
            _add(counts, found)
            counts.rejected_paths += [rejected_path(self.staging, number, i) for i in range(found["rejected_files"])]
        return counts

    def _others(self, numbers: list[int]) -> list[int]:
        return sorted(set(range(len(self.slices))) - set(numbers))

    def _result(self, number: int) -> str:
        return _result_path(self.staging, number)


@dataclass(frozen=True)
class CleanSlices:
    """Read and clean one slice: accepted rows as an Arrow stream, rejected ones to the staging folder."""

    source: Source
    slices: list[Slice]
    rules: CleaningRules
    staging: str

    def __call__(self, number: int) -> bytes:
        tables: list[pa.Table] = []
        reasons: Counter[str] = Counter()
        num_read = num_files = 0
        for part in read_rows(self.source, self.slices[number], number, self.rules):
            num_read += part.num_read
            tables.append(part.table)
            if part.rejected:
                write_quarantine(rejected_path(self.staging, number, num_files), part.rejected)
                num_files += 1
                reasons.update(record.reason.value for record in part.rejected)
        counts = {"number": number, "read": num_read, "reasons": dict(reasons), "rejected_files": num_files}
        table = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
        sink = pa.BufferOutputStream()
        schema = SCHEMA.with_metadata({_COUNTS: json.dumps(counts)})
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_table(table.replace_schema_metadata(schema.metadata))
        return bytes(sink.getvalue())


@dataclass(frozen=True)
class StartShowing:
    """Makes an actor ready: the model to the GPU, if the actor was given one."""

    run: ray.ObjectRef[LoadedRun]
    """in the object store, so that all actors ask the same model, whatever its run does meanwhile"""
    show: Show
    shuffle: Shuffle

    def __call__(self) -> Callable[[bytes], str]:
        import torch

        run = ray.get(self.run)
        run.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return _Showing(run, self.show, self.shuffle)


class _Showing:
    def __init__(self, run: LoadedRun, show: Show, shuffle: Shuffle) -> None:
        self._run, self._show, self._shuffle = run, show, shuffle

    def __call__(self, piece: bytes) -> str:
        shape = self._run.model.config
        rows = pa.ipc.open_stream(piece).read_all().combine_chunks()
        counts: dict[str, Any] = json.loads(rows.schema.metadata[_COUNTS])
        records = to_records(rows, self._run.tokenizer, shape.image_size, shape.max_tokens)
        places = [rows[field.name] for field in PLACE_FIELDS]
        staged = pa.table([*places, *self._show(self._run, records, rows)], schema=self._shuffle.schema)
        number = counts["number"]
        for path in self._shuffle.write_slice(number, [staged]):
            storage.sync(path)
        result = json.dumps(counts | {"accepted": len(staged)})
        storage.write_bytes_atomically(_result_path(self._shuffle.staging, number), result.encode())
        return result


def staged_schema(show: Show, width: int) -> pa.Schema:
    """Which record, and what the model made of it."""
    return pa.schema([*PLACE_FIELDS, *show.schema(width)])


def _add(counts: SourceCounts, found: dict[str, Any]) -> None:
    counts.read += found["read"]
    counts.accepted += found["accepted"]
    counts.reasons.update(found["reasons"])


def _result_path(staging: str, number: int) -> str:
    return storage.join(staging, _result_name(number))


def _result_name(number: int) -> str:
    return f"slice-{number:06d}.json"
