"""The ways of feeding a model that `benchmarks/feed.py` compares: each gives the same kind of masked batches.

All decode with the same function and draw the same masks. The peers shuffle as cheaply as they can: whole row groups or
shards, and records in a small buffer at most; none is asked for an order that can be resumed, as ours is.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, get_worker_info

from mlim_ray.config import FeedConfig, MamConfig, TrainConfig
from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, decode_records
from mlim_ray.training.batch import Batch, Masking, make_batch
from mlim_ray.training.stream import TRAIN_SPLIT, ShardReader, stream_order

_NUM_CELLS = 49
_TAR_RECORDS = 1_000
_SHUFFLED_RECORDS = 1_000

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Job:
    """What is to be fed, and how much of it."""

    prepared: str
    work: str
    batch_size: int
    num_steps: int
    num_workers: int
    """processes of a DataLoader"""
    prefetch_factor: int

    def open(self) -> PreparedSet:
        """The prepared set."""
        return PreparedSet.open(self.prepared)

    @property
    def masking(self) -> Masking:
        """The paper's masks."""
        return Masking(MamConfig(), seed=0, num_cells=_NUM_CELLS)

    def reader(self) -> ShardReader:
        """Our own reader, as a run with one worker has it."""
        prepared = self.open()
        order = stream_order(prepared, TrainConfig(batch_size=self.batch_size, seed=0), FeedConfig())
        return ShardReader(prepared, order, self.masking, range(order.num_lanes))


def bare(job: Job) -> Iterator[Batch]:
    """Read, decode and mask, one chunk after the other in this process."""
    reader = job.reader()
    for chunk in itertools.count():
        rows, step_of_row = reader.read_chunks(range(chunk, chunk + 1), 0, job.num_steps)
        for step in np.unique(step_of_row):
            yield rows.take(slice(*np.searchsorted(step_of_row, [step, step + 1])))


def stream(job: Job) -> Iterator[Batch]:
    """Ours from Ray Data; Ray is running."""
    from mlim_ray.pipelines.feed import stream_batches

    return stream_batches(job.reader(), 0, job.num_steps)


def resident(job: Job) -> Iterator[Batch]:
    """Ours from shared memory; Ray is running."""
    import ray

    from mlim_ray.pipelines.feed import put_resident
    from mlim_ray.training.stream import resident_batches

    reader = job.reader()
    records = ray.get(put_resident(reader.prepared))
    return resident_batches(records, reader.order, reader.masking, reader.lanes, 0, job.num_steps)


def dataloader(job: Job) -> Iterator[Tensors]:
    """PyTorch's DataLoader over the shards."""
    return _epochs(_loader(_RowGroups(job), job, batch_size=None))


def webdataset(job: Job) -> Iterator[Tensors]:
    """WebDataset over tar files of the same pictures."""
    import webdataset as wds

    pattern = sorted(map(str, Path(tar_folder(job)).glob("*.tar")))
    # Records that do not fill a batch are left out, or every worker would end each epoch with a small one.
    samples = wds.WebDataset(pattern, shardshuffle=len(pattern), empty_check=False).shuffle(_SHUFFLED_RECORDS)
    batches = samples.batched(job.batch_size, collation_fn=list, partial=False).map(_UnpackSamples(job))
    return _epochs(_loader(batches, job, batch_size=None))


def huggingface(job: Job) -> Iterator[Tensors]:
    """Hugging Face datasets: the shards' columns as a memory-mapped Arrow table."""
    from datasets import load_from_disk

    table = load_from_disk(arrow_folder(job)).with_format("arrow")
    batches = BatchSampler(RandomSampler(table), job.batch_size, drop_last=True)
    return _epochs(_loader(_ArrowRows(table, job), job, batch_size=None, sampler=batches))


WAYS: dict[str, Callable[[Job], Iterator[Batch] | Iterator[Tensors]]] = {
    "bare": bare,
    "stream": stream,
    "resident": resident,
    "dataloader": dataloader,
    "webdataset": webdataset,
    "huggingface": huggingface,
}
WITH_RAY = ("stream", "resident")
WITH_WORKERS = ("dataloader", "webdataset", "huggingface")
PACKAGES = {"webdataset": "webdataset", "huggingface": "datasets"}


def tar_folder(job: Job) -> str:
    """Tar files with what training reads of the shards; made unless they are there."""
    return _made_once(job, "tar", _write_tars)


def arrow_folder(job: Job) -> str:
    """A Hugging Face data set with what training reads of the shards; made unless it is there."""
    return _made_once(job, "arrow", _write_arrow)


def _made_once(job: Job, kind: str, make: Callable[[Job, Path], None]) -> str:
    prepared = job.open()
    out = Path(job.work) / f"{kind}-{prepared.manifest.fingerprint[:12]}"
    if not out.is_dir():
        part = out.with_name(f"{out.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        make(job, part)
        os.replace(part, out)
    return str(out)


def _write_tars(job: Job, folder: Path) -> None:
    prepared = job.open()
    rows = _rows(prepared)
    for number in itertools.count():
        some = list(itertools.islice(rows, _TAR_RECORDS))
        if not some:
            return
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for row in some:
                words = np.array([row["token_ids"], row["word_of_token"]], np.int32)
                for suffix, content in (("picture", row["image"]), ("words", words.tobytes())):
                    member = tarfile.TarInfo(f"{row['key_hash']:016x}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _write_arrow(job: Job, folder: Path) -> None:
    from datasets import Dataset as ArrowDataset

    prepared = job.open()
    paths = [storage.join(prepared.path, shard.path) for shard in prepared.manifest.splits[TRAIN_SPLIT].shards]
    table = ArrowDataset.from_parquet(paths, columns=list(COLUMNS), cache_dir=str(folder.with_suffix(".cache")))
    table.save_to_disk(str(folder))


def _rows(prepared: PreparedSet) -> Iterator[dict[str, Any]]:
    for group in range(prepared.num_groups(TRAIN_SPLIT)):
        yield from prepared.read_group(TRAIN_SPLIT, group, COLUMNS).to_pylist()


def _loader(dataset: Any, job: Job, **options: Any) -> DataLoader[Tensors]:
    return DataLoader(
        dataset,
        num_workers=job.num_workers,
        prefetch_factor=job.prefetch_factor,
        persistent_workers=True,
        **options,
    )


def _epochs(loader: Iterable[Tensors]) -> Iterator[Tensors]:
    while True:
        yield from loader


def _masked_tensors(table: pa.Table, prepared: PreparedSet, masking: Masking) -> Tensors:
    batch = make_batch(decode_records(table, prepared.manifest), 0, masking)
    # Torch cannot send unsigned numbers of 64 bits between processes.
    arrays = batch._replace(key_hash_B=batch.key_hash_B.view(np.int64))
    return tuple(torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in arrays)


class _RowGroups(IterableDataset[Tensors]):
    """Each worker's share of the row groups in random order, as many joined as fill a batch."""

    def __init__(self, job: Job) -> None:
        self._prepared, self._masking, self._batch_size = job.open(), job.masking, job.batch_size

    def __iter__(self) -> Iterator[Tensors]:
        info = get_worker_info()
        groups = list(range(self._prepared.num_groups(TRAIN_SPLIT)))
        random.Random(info.seed if info is not None else 0).shuffle(groups)
        if info is not None:
            groups = [group for group in sorted(groups) if group % info.num_workers == info.id]
            random.Random(info.seed).shuffle(groups)
        waiting: list[pa.Table] = []
        for group in groups:
            waiting.append(self._prepared.read_group(TRAIN_SPLIT, group, COLUMNS))
            while sum(map(len, waiting)) >= self._batch_size:
                rows = pa.concat_tables(waiting)
                yield _masked_tensors(rows.slice(0, self._batch_size), self._prepared, self._masking)
                waiting = [rows.slice(self._batch_size)]


class _ArrowRows(Dataset[Tensors]):
    """A batch for each list of row numbers."""

    def __init__(self, table: Any, job: Job) -> None:
        self._table, self._prepared, self._masking = table, job.open(), job.masking

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, rows: list[int]) -> Tensors:
        return _masked_tensors(self._table[rows], self._prepared, self._masking)


class _UnpackSamples:
    """WebDataset's samples as a masked batch."""

    def __init__(self, job: Job) -> None:
        self._prepared, self._masking = job.open(), job.masking

    def __call__(self, samples: list[dict[str, Any]]) -> Tensors:
        words = [np.frombuffer(sample["words"], np.int32).reshape(2, -1) for sample in samples]
        table = pa.table(
            {
                "key_hash": pa.array([int(sample["__key__"], 16) for sample in samples], pa.uint64()),
                "image": pa.array([sample["picture"] for sample in samples], pa.binary()),
                "token_ids": pa.array([ids for ids, _ in words], pa.list_(pa.int32())),
                "word_of_token": pa.array([of.astype(np.int16) for _, of in words], pa.list_(pa.int16())),
            }
        )
        return _masked_tensors(table, self._prepared, self._masking)
