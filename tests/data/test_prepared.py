import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.manifest import Counts, Manifest, Split, StoredImage, StoredText, write_manifest
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.shard_cache import ShardCache
from mlim_ray.data.shards import ShardWriter, TrainSums, row_group_records
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.data.staging import SCHEMA, bucket_of, first_of_key
from mlim_ray.data.tokenizer import TextTokenizer, count_words, train_tokenizer
from tests.prepared_sets import BY_HAND

SIZE = 8
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(count_words(["red shirt", "blue shoe 0123456789"]), 100)


def staged(keys: list[int], split: str = "train", slice_number: int = 0) -> pa.Table:
    """Records whose key hash is chosen, so that their bucket and place are known."""
    pixels = [np.full((SIZE, SIZE, 3), key % 256, np.uint8) for key in keys]
    rows = [
        {
            "key": f"k{key}",
            "key_hash": key,
            "slice": slice_number,
            "row": row,
            "source": "a",
            "image": picture.tobytes(),
            "pixel_sums": [
                *picture.reshape(-1, 3).astype(int).sum(0),
                *(picture.reshape(-1, 3).astype(int) ** 2).sum(0),
            ],
            "text": f"red shirt {key}",
            "was_cut": False,
            "label": None,
            "group": None,
            "split": split,
        }
        for row, (key, picture) in enumerate(zip(keys, pixels, strict=True))
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(1, 300))
def test_buckets_are_ranges_in_order(hashes: list[int], num_buckets: int) -> None:
    buckets = bucket_of(np.array(sorted(hashes), np.uint64), num_buckets)
    assert (np.diff(buckets) >= 0).all()
    assert ((buckets >= 0) & (buckets < num_buckets)).all()


@settings(max_examples=15)
@given(
    keys=st.lists(st.integers(0, 2**64 - 1), max_size=40),
    num_buckets=st.integers(1, 5),
    cut=st.integers(0, 40),
)
def test_buckets_hold_every_record_sorted_whatever_the_slices(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int], num_buckets: int, cut: int
) -> None:
    shuffle = Shuffle.plan(str(tmp_path_factory.mktemp("staging")), 2, num_buckets)
    shuffle.write_slice(0, [staged(keys[:cut])])
    shuffle.write_slice(1, [staged(keys[cut:], slice_number=1)] if keys[cut:] else [])
    found = [shuffle.read_bucket(bucket) for bucket in range(num_buckets)]
    assert [h for table in found for h in table["key_hash"].to_pylist()] == sorted(keys)
    for row in (row for table in found for row in table.to_pylist()):
        assert row["image"] == bytes([row["key_hash"] % 256]) * (SIZE * SIZE * 3)
        assert row["text"] == f"red shirt {row['key_hash']}"
    first = np.concatenate([first_of_key(table) for table in found])
    assert first.sum() == len(set(keys))
    chosen = {
        (row["key"], row["slice"] * 100 + row["row"])
        for table in found
        for row, is_first in zip(table.to_pylist(), first_of_key(table), strict=True)
        if is_first
    }
    order = [*range(min(cut, len(keys))), *(100 + i for i in range(len(keys[cut:])))]
    expected: dict[str, int] = {}
    for key, place in zip(keys, order, strict=True):
        expected.setdefault(f"k{key}", place)
    assert chosen == set(expected.items())


@pytest.fixture
def prepared(tmp_path: Path, tokenizer: TextTokenizer) -> PreparedSet:
    """Two buckets: 150 training records, 70 of validation, none of test."""
    out, staging = str(tmp_path / "set"), str(tmp_path / "staging")
    writer = ShardWriter(out, staging, 0, 6, SIZE)
    sums = TrainSums(np.zeros(tokenizer.vocab_size, np.int64))
    shards: dict[str, list] = {split: [] for split in SPLITS}
    for bucket, (train, val) in enumerate([(range(0, 100), range(500, 570)), (range(100, 150), range(0))]):
        table = pa.concat_tables([staged(list(train)), staged(list(val), "val")])
        result = writer.write_bucket(bucket, table, tokenizer)
        sums.add(result.sums)
        for split, shard in result.shards.items():
            shards[split].append(shard)
    shards["train"] += writer.write_tail("train", [0, 1])
    shards["val"] += writer.write_tail("val", [0])
    sizes = {"train": 150, "val": 70, "test": 0}
    for name, content in tokenizer.files().items():
        path = tmp_path / "set" / "tokenizer" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    manifest = Manifest(
        **BY_HAND,
        config=resolve_prepare_config(PrepareConfig(), SIZE),
        columns={"image": "image", "text": "text"},
        counts=Counts(read=220, accepted=220, rejected=0, duplicates=0, cut_texts=0, reasons={}),
        splits={split: Split(num_records=sizes[split], shards=tuple(shards[split])) for split in SPLITS},
        row_group_records=row_group_records(SIZE),
        image=StoredImage(size=SIZE, encoding="raw"),
        text=StoredText(max_tokens=6, vocab_size=tokenizer.vocab_size),
        statistics=sums.statistics(),
    )
    write_manifest(out, manifest)
    return PreparedSet.open(out)


def test_all_row_groups_of_a_split_but_the_last_are_full(prepared: PreparedSet) -> None:
    assert prepared.row_groups("train") == (64, 64, 22)
    assert prepared.row_groups("val") == (64, 6)
    assert prepared.row_groups("test") == ()
    for split in SPLITS:
        for group, size in enumerate(prepared.row_groups(split)):
            assert len(prepared.read_group(split, group)) == size
        for shard in prepared.manifest.splits[split].shards:
            metadata = pq.ParquetFile(Path(prepared.path) / shard.path).metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            assert set(sizes[:-1]) <= {64} and sum(sizes) == shard.num_records


def test_every_record_is_there_once_with_its_own_picture(prepared: PreparedSet) -> None:
    rows = prepared.read("train").to_pylist()
    assert sorted(row["key_hash"] for row in rows) == list(range(150))
    assert all(row["image"] == bytes([row["key_hash"]]) * (SIZE * SIZE * 3) for row in rows)
    assert all(row["text"] == f"red shirt {row['key_hash']}" for row in rows)


def test_tokens_belong_to_the_text(prepared: PreparedSet) -> None:
    tokenizer = prepared.tokenizer()
    for row in prepared.read("val", limit=10).to_pylist():
        pieces = tokenizer.encode([row["text"]], 6)[0]
        assert (row["token_ids"], row["word_of_token"]) == (pieces.token_ids, pieces.word_of_token)
        assert len(row["token_ids"]) <= 6


def test_reading_some_columns_and_records(prepared: PreparedSet) -> None:
    table = prepared.read("train", ["key_hash", "text"], limit=70)
    assert table.column_names == ["key_hash", "text"] and len(table) == 70
    assert table.equals(prepared.read("train", ["key_hash", "text"]).slice(0, 70))
    assert len(prepared.read("test")) == 0 and len(prepared.read("train", limit=0)) == 0
    with pytest.raises(IndexError):
        prepared.read_group("train", 3)
    with pytest.raises(ValueError, match="expected one of train, val, test"):
        prepared.num_records("dev")


def test_statistics_equal_direct_ones(prepared: PreparedSet) -> None:
    table = prepared.read("train")
    pixels = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 3) / 255
    assert prepared.manifest.statistics.pixel_variance == pytest.approx(pixels.var(0).sum(), rel=1e-9)
    pieces = np.concatenate([ids[1:-1] for ids in table["token_ids"].to_pylist()])
    shares = np.unique(pieces, return_counts=True)[1] / len(pieces)
    assert prepared.manifest.statistics.unigram_entropy == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-9)


def test_it_travels_small(prepared: PreparedSet) -> None:
    prepared.read_group("train", 0)
    packed = pickle.dumps(prepared)
    assert len(packed) < 6_000
    assert pickle.loads(packed).read("train").equals(prepared.read("train"))


def test_verify_finds_a_flipped_bit(prepared: PreparedSet) -> None:
    prepared.verify()
    path = Path(prepared.path) / prepared.manifest.splits["train"].shards[0].path
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        prepared.verify()


def test_an_empty_split_is_named_where_it_is_needed(prepared: PreparedSet) -> None:
    prepared.require("train", "val")
    with pytest.raises(ValueError, match=r"no records in split test \(train 150, val 70, test 0\)"):
        prepared.require("train", "test")


def test_manifests_that_cannot_be_used_are_named(prepared: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} is no prepared set"):
        PreparedSet.open(str(tmp_path))
    path = Path(prepared.path) / "manifest.json"
    content = json.loads(path.read_text())
    for change, message in (
        ({"version": 4}, r"written by a newer mlim_ray: it is of version 4 .* upgrade"),
        ({"version": 1}, "of version 1 .* prepare the set anew"),
        ({"format": "other"}, "of format 'other'"),
        ({"row_group_records": "x"}, "row_group_records"),
        ({"unknown": 1}, "unknown"),
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match=message):
            PreparedSet.open(prepared.path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        PreparedSet.open(prepared.path)


def test_a_process_that_is_sent_a_set_again_and_again_builds_it_once(prepared: PreparedSet) -> None:
    first = pickle.loads(pickle.dumps(prepared))
    assert first == prepared and first is not prepared
    assert pickle.loads(pickle.dumps(prepared)) is first
    grown = replace(prepared, manifest=prepared.manifest.model_copy(update={"fingerprint": "other"}))
    assert pickle.loads(pickle.dumps(grown)) == grown
    cached = replace(prepared, cache=ShardCache(None, 1_000))
    assert pickle.loads(pickle.dumps(cached)) == cached


def test_a_missing_shard_is_named(prepared: PreparedSet) -> None:
    path = Path(prepared.path) / prepared.manifest.splits["val"].shards[0].path
    path.unlink()
    with pytest.raises(ValueError, match=path.name):
        prepared.read_group("val", 0)
