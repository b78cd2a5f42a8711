"""A prepared set of small pictures on disk, written as `prepare` writes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.counter import hash_key
from mlim_ray.data.images import encode_stored
from mlim_ray.data.manifest import (
    SPLITS,
    Counts,
    Generation,
    Manifest,
    Split,
    Statistics,
    StoredImage,
    StoredText,
    library_versions,
    write_manifest,
)
from mlim_ray.data.prepared import TOKENIZER_FOLDER, PreparedSet
from mlim_ray.data.shards import TRAIN, ShardWriter, TrainSums, row_group_records
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.data.staging import SCHEMA
from mlim_ray.data.tokenizer import count_words, train_tokenizer

SIZE, MAX_TOKENS, NUM_BUCKETS = 8, 12, 3
BY_HAND: dict[str, Any] = {
    "fingerprint": "f",
    "generations": (Generation(kind="prepare", source="s", source_sha256="0", read=0, accepted=0),),
    "shard_schema": {},
    "quarantine": (),
    "tokenizer": (),
    "libraries": library_versions(),
}
"""What a manifest says of its making, for sets that tests put together."""


class SourceRecord(NamedTuple):
    """A training record before it is prepared."""

    picture: np.ndarray
    text: str
    label: int


def source_records(num_records: int, num_labels: int = 4) -> dict[int, SourceRecord]:
    """Records by the hash of their key, sorted by label; each has a picture and a title of its own."""
    rng = np.random.default_rng(7)
    pictures = rng.integers(0, 256, (num_records, SIZE, SIZE, 3), np.uint8)
    return {
        hash_key(f"record {i}"): SourceRecord(picture, f"shirt number {i}", i * num_labels // num_records)
        for i, picture in enumerate(pictures)
    }


def write_prepared(folder: Path, records: dict[int, SourceRecord], encoding: str = "raw") -> PreparedSet:
    """Stage the records, then write shards, tail, tokenizer and manifest; all of them are of the training split."""
    out, staging = str(folder / "set"), str(folder / "staging")
    tokenizer = train_tokenizer(count_words([record.text for record in records.values()]), 200)
    shuffle = Shuffle.plan(staging, 1, NUM_BUCKETS)
    shuffle.write_slice(0, [staged(records, encoding)])
    sums = TrainSums(np.zeros(tokenizer.vocab_size, np.int64))
    shards, with_leftovers = [], []
    writer = ShardWriter(out, staging, 0, MAX_TOKENS, SIZE)
    for bucket in range(NUM_BUCKETS):
        table = shuffle.read_bucket(bucket)
        result = writer.write_bucket(bucket, table, tokenizer)
        sums.add(result.sums)
        shards += result.shards.values()
        if result.num_records["train"] % row_group_records(SIZE):
            with_leftovers.append(bucket)
    shards += writer.write_tail("train", with_leftovers)
    for name, content in tokenizer.files().items():
        path = folder / "set" / "tokenizer" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    train = Split(num_records=len(records), shards=tuple(shards))
    empty = Split(num_records=0, shards=())
    manifest = Manifest(
        **BY_HAND,
        config=resolve_prepare_config(PrepareConfig(), SIZE),
        columns={"image": "image", "text": "text"},
        counts=Counts(read=len(records), accepted=len(records), rejected=0, duplicates=0, cut_texts=0, reasons={}),
        splits={name: train if name == "train" else empty for name in SPLITS},
        row_group_records=row_group_records(SIZE),
        image=StoredImage(size=SIZE, encoding=encoding),
        text=StoredText(max_tokens=MAX_TOKENS, vocab_size=tokenizer.vocab_size),
        statistics=sums.statistics(),
    )
    write_manifest(out, manifest)
    return PreparedSet.open(out)


def write_unfilled(out: Path, source: str, image_size: int = 32, **knobs: Any) -> Path:
    """A prepared set without its shards: the manifest and the tokenizer of a source, which a plan and a model need."""
    config = resolve_prepare_config(PrepareConfig(**knobs), image_size)
    opened = open_source(source, config)
    rules = CleaningRules.of(config, has_split=True)
    records = [
        record for part in opened.slices() for some in opened.read(part) for record in clean(some, rules).accepted
    ]
    words = count_words([record.text for record in records if record.split == TRAIN])
    tokenizer = train_tokenizer(words, config.vocabulary_size)
    (out / TOKENIZER_FOLDER).mkdir(parents=True)
    for name, content in tokenizer.files().items():
        (out / TOKENIZER_FOLDER / name).write_bytes(content)
    number = len(records)
    manifest = Manifest(
        **BY_HAND,
        config=config,
        columns=opened.columns.by_role(),
        counts=Counts(read=number, accepted=number, rejected=0, duplicates=0, cut_texts=0, reasons={}),
        splits={s: Split(num_records=sum(record.split == s for record in records), shards=()) for s in SPLITS},
        row_group_records=row_group_records(image_size),
        image=StoredImage(size=image_size, encoding="raw"),
        text=StoredText(max_tokens=config.max_tokens, vocab_size=tokenizer.vocab_size),
        statistics=Statistics(unigram_entropy=1.0, pixel_variance=0.1),
        generated=opened.generated,
    )
    write_manifest(str(out), manifest)
    return out


def damage(prepared: PreparedSet, *groups: int) -> None:
    """Overwrite some bytes of the pictures of row groups of the training split."""
    for group in groups:
        place = prepared.row_group("train", group)
        start = pq.read_metadata(place.path).row_group(place.index).column(2).data_page_offset
        with open(place.path, "r+b") as file:
            file.seek(start + 100)
            file.write(bytes(range(100)))


def staged(records: dict[int, SourceRecord], encoding: str) -> pa.Table:
    """Records as the first pass of prepare lays them down."""
    rows = []
    for row, (key_hash, record) in enumerate(records.items()):
        values = record.picture.reshape(-1, 3).astype(int)
        rows.append(
            {
                "key": f"record {row}",
                "key_hash": key_hash,
                "slice": 0,
                "row": row,
                "source": "a",
                "image": encode_stored(record.picture, encoding),
                "pixel_sums": [*values.sum(0), *(values**2).sum(0)],
                "text": record.text,
                "was_cut": False,
                "label": str(record.label),
                "group": None,
                "split": "train",
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)
