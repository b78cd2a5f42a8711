"""What held-out records have in common with those that a model, or a head on it, was trained on.

Records are told by 64-bit hashes of their keys, titles and stored pictures, so that millions fit into memory.

Legend: R records.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.data.counter import UInt64s
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.evaluation.result import Cell, ResultTable

TRAIN, HELD_OUT = "train", ("val", "test")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Traces:
    """What the records of a split are told by, each [R]."""

    keys: UInt64s
    titles: UInt64s
    """of the text as a model reads it: split by its vocabulary and cut to its length"""
    pictures: UInt64s
    """of the stored bytes"""
    stored_as: tuple[int, str]
    """side and encoding; pictures that are stored otherwise cannot be compared"""

    @classmethod
    def of(cls, prepared: PreparedSet, split: str) -> "Traces":
        """Read a split once, a row group at a time; damaged row groups are named in the log and left out."""
        keys, titles, pictures = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for group in range(prepared.num_groups(split)):
            try:
                table = prepared.read_group(split, group, ("key_hash", "token_ids", "image"))
            except DamagedShardError as error:
                logger.warning("left out: %s", error)
                continue
            keys.append(table["key_hash"].to_numpy())
            titles.append(title_hashes(_rows(table["token_ids"])))
            pictures.append(np.array([_hash(image.as_buffer()) for image in table["image"]], np.uint64))
        image = prepared.manifest.image
        return cls(np.concatenate(keys), np.concatenate(titles), np.concatenate(pictures), (image.size, image.encoding))

    def without(self, keys: UInt64s) -> "Traces":
        """The records whose key is none of these."""
        kept = ~np.isin(self.keys, keys)
        return Traces(self.keys[kept], self.titles[kept], self.pictures[kept], self.stored_as)


@dataclass(frozen=True)
class Shared:
    """How many records of a held-out split some training records have the like of."""

    titles: int
    pictures: int | None
    """None: the two are stored in different ways"""

    @classmethod
    def of(cls, held_out: Traces, trained: Traces) -> "Shared":
        """Count the held-out records."""
        titles = int(np.isin(held_out.titles, trained.titles).sum())
        if held_out.stored_as != trained.stored_as:
            return cls(titles, None)
        return cls(titles, int(np.isin(held_out.pictures, trained.pictures).sum()))


@dataclass(frozen=True)
class SplitOverlap:
    """One held-out split of the set that a model is evaluated on."""

    split: str
    num_records: int
    num_trained: int | None
    """records whose key the model was pre-trained on: they are left out of every evaluation; None: not known"""
    with_pretraining: Shared | None
    """of the others, against the records that the model was pre-trained on; None: not known"""
    with_training: Shared
    """of the others, against the training split of the set that they are of, on which heads are trained"""


@dataclass(frozen=True)
class Overlap:
    """What was found before anything was evaluated."""

    splits: list[SplitOverlap]

    def tables(self) -> list[ResultTable]:
        """A row for each held-out split."""
        rows: list[dict[str, Cell]] = []
        for of in self.splits:
            before = of.with_pretraining
            rows.append(
                {
                    "split": of.split,
                    "records": of.num_records,
                    "left out": of.num_trained,
                    "title seen": None if before is None else before.titles,
                    "picture seen": None if before is None else before.pictures,
                    "title in train": of.with_training.titles,
                    "picture in train": of.with_training.pictures,
                }
            )
        caption = (
            "Left out: records whose key the model was pre-trained on. Of the others, title seen and picture seen: "
            "those with the title, as far as it is read, or with every byte of the picture, of a record that it was "
            "pre-trained on. In train: those of a training record of this set, which heads are trained on. A dash: not "
            "known."
        )
        return [ResultTable("Records in common with training", caption, rows)]

    def verdict(self) -> list[str]:
        """What to bear in mind when reading the other tables."""
        if any(of.num_trained is None for of in self.splits):
            return [
                "The set that the model was pre-trained on is not there: records that it saw could not be left out."
            ]
        found = []
        left_out = sum(of.num_trained or 0 for of in self.splits)
        if left_out:
            found.append(f"{left_out:,} held-out records whose key was pre-trained on are left out.")
        pictures = sum(of.with_pretraining.pictures or 0 for of in self.splits if of.with_pretraining)
        if pictures:
            found.append(f"{pictures:,} held-out records have a picture that was pre-trained on under another key.")
        found = found or ["No held-out record has a key or a picture that was pre-trained on."]
        others = sum(of.num_records - (of.num_trained or 0) for of in self.splits)
        for who, titles in (
            ("was pre-trained on", sum(of.with_pretraining.titles for of in self.splits if of.with_pretraining)),
            ("a training record of this set has too", sum(of.with_training.titles for of in self.splits)),
        ):
            if 2 * titles > others:
                found.append(
                    f"Texts repeat: {titles:,} of the other {others:,} have one that {who}, so what is told from texts "
                    "may be what was learned by heart."
                )
        return found


@dataclass(frozen=True)
class Survey:
    """The overlap, and what evaluations need of it."""

    overlap: Overlap
    trained_keys: UInt64s
    """hashes of the keys that the model was pre-trained on; empty where that is not known"""
    trained_titles: UInt64s | None

    def untrained(self, key_hashes: UInt64s) -> NDArray[np.int64]:
        """Indices of the records that the model was not pre-trained on."""
        return np.flatnonzero(~np.isin(key_hashes, self.trained_keys))

    def titles_seen(self, records: Records) -> NDArray[np.bool_] | None:
        """For each title [R], split by the model's vocabulary, whether the model was pre-trained on it."""
        rows = (ids_T[:num] for ids_T, num in zip(records.token_ids_RT, records.num_tokens_R, strict=True))
        return None if self.trained_titles is None else np.isin(title_hashes(rows), self.trained_titles)


def survey(prepared: PreparedSet, pretrained_on: PreparedSet | None) -> Survey:
    """What a set's held-out records share with what a model was pre-trained on, and with their own training split.

    Raises as `PreparedSet.read_group` does where a shard cannot be read.
    """
    own = Traces.of(prepared, TRAIN)
    before = None
    if pretrained_on is not None:
        same = pretrained_on.manifest == prepared.manifest
        before = own if same else Traces.of(pretrained_on, TRAIN)
    splits = []
    for split in HELD_OUT:
        held_out = Traces.of(prepared, split)
        kept = held_out if before is None else held_out.without(before.keys)
        splits.append(
            SplitOverlap(
                split,
                len(held_out.keys),
                None if before is None else len(held_out.keys) - len(kept.keys),
                None if before is None else Shared.of(kept, before),
                Shared.of(kept, own),
            )
        )
    no_keys = np.empty(0, np.uint64)
    return Survey(
        Overlap(splits), no_keys if before is None else before.keys, None if before is None else before.titles
    )


def title_hashes(titles: Iterable[NDArray[np.int32]]) -> UInt64s:
    """A hash of each title, given by its pieces: titles that differ only in case, or beyond what a model reads of them,
    have the same."""
    return np.array([_hash(ids_T.tobytes()) for ids_T in titles], np.uint64)


def _rows(column: pa.ChunkedArray) -> list[NDArray[np.int32]]:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    return np.split(lists.flatten().to_numpy().astype(np.int32), (offsets - offsets[0])[1:-1]) if len(lists) else []


def _hash(content: bytes | memoryview) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
