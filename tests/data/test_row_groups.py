"""A shard that is no more what was prepared is named, or what is read of it is what was prepared."""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.data import row_groups
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, Records, decode_records
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.storage import StorageError
from mlim_ray.training.stream import read_groups
from tests.prepared_sets import source_records, write_prepared

NUM_RECORDS, NUM_FLIPS = 700, 200


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Three shards of some row groups each, and their tail, of pictures of 8 pixels."""
    return write_prepared(tmp_path_factory.mktemp(request.param), source_records(NUM_RECORDS), request.param)


@pytest.fixture
def shard(whole: PreparedSet) -> Iterator[Path]:
    """Its first shard, to be damaged; it is whole again afterwards."""
    path = Path(whole.path) / whole.manifest.splits["train"].shards[0].path
    content = path.read_bytes()
    row_groups.open_shard.cache_clear()
    yield path
    if path.is_dir():
        path.rmdir()
    path.write_bytes(content)
    row_groups.open_shard.cache_clear()


def groups_of(prepared: PreparedSet) -> range:
    """The row groups of the first shard."""
    return range(prepared._layout["train"][0][1])


def become_of(prepared: PreparedSet, shard: Path, content: bytes, good: list[Records]) -> set[str]:
    """What a reader makes of the shard's row groups: each of them named as damaged, or as it was prepared."""
    shard.write_bytes(content)
    row_groups.open_shard.cache_clear()
    became = set()
    for group, expected in enumerate(good):
        try:
            found = read_groups(prepared, range(group, group + 1))
        except DamagedShardError as error:
            assert str(error).startswith(f"{shard}, row group {group}: "), error
            assert error.detail and error.detail in str(error) and "\n" not in str(error)
            assert f"mlim-ray verify {prepared.path}" in str(error)
            became.add("named")
            continue
        for name, one, other in zip(Records._fields, found, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
        became.add("as it was")
    return became


def flipped(content: bytes, bits: np.ndarray) -> Iterator[bytes]:
    for bit in bits.tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def test_each_flipped_bit_is_noticed_or_without_effect(whole: PreparedSet, shard: Path) -> None:
    content, good = shard.read_bytes(), [read_groups(whole, range(g, g + 1)) for g in groups_of(whole)]
    bits = np.random.default_rng(1).choice(8 * len(content), NUM_FLIPS, replace=False)
    became = [become_of(whole, shard, damaged, good) for damaged in flipped(content, bits)]
    # Most bits are of pictures. Of the text itself, labels and groups nothing is read in training.
    assert sum("named" in each for each in became) > 0.5 * NUM_FLIPS
    # A row group is left alone by what happened to another.
    assert {"named", "as it was"} in became and {"as it was"} in became


def test_each_flipped_bit_outside_of_pages_is_noticed_or_without_effect(whole: PreparedSet, shard: Path) -> None:
    """Of headers and the footer there is no checksum."""
    content, good = shard.read_bytes(), [read_groups(whole, range(g, g + 1)) for g in groups_of(whole)]
    metadata = pq.read_metadata(shard)
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    headers = [np.arange(column.data_page_offset, column.data_page_offset + 30) for column in columns]
    footer = np.arange(len(content) - 8 - struct.unpack("<I", content[-8:-4])[0], len(content))
    places = np.concatenate([*headers, footer])
    bits = np.random.default_rng(2).choice(8 * len(places), 300, replace=False)
    became = [become_of(whole, shard, damaged, good) for damaged in flipped(content, 8 * places[bits // 8] + bits % 8)]
    assert {"named"} in became and {"as it was"} in became


@pytest.mark.parametrize("kept", [0, 3, 100, 20_000, -5_000, -100, -1])
def test_a_shard_cut_short_or_longer_is_named(whole: PreparedSet, shard: Path, kept: int) -> None:
    content, good = shard.read_bytes(), [read_groups(whole, range(g, g + 1)) for g in groups_of(whole)]
    assert become_of(whole, shard, content[:kept], good) == {"named"}
    assert become_of(whole, shard, content + content[:1], good) == {"named"}


def test_a_shard_that_is_cut_or_changed_under_the_reader_is_named(whole: PreparedSet, shard: Path) -> None:
    whole.read_group("train", 0, COLUMNS)
    content = shard.read_bytes()
    with shard.open("r+b") as file:
        file.truncate(1_000)
    with pytest.raises(DamagedShardError, match=f"{shard}, row group 0: "):
        whole.read_group("train", 0, COLUMNS)
    shard.write_bytes(content)
    whole.read_group("train", 0, COLUMNS)
    place = pq.read_metadata(shard).row_group(0).column(2).data_page_offset + 60
    with shard.open("r+b") as file:
        file.seek(place)
        file.write(bytes([content[place] ^ 16]))
    with pytest.raises(DamagedShardError, match="row group 0: .*checksum"):
        whole.read_group("train", 0, COLUMNS)


def test_a_missing_shard_is_damage_and_a_failing_disk_is_none(whole: PreparedSet, shard: Path) -> None:
    shard.unlink()
    with pytest.raises(DamagedShardError, match="row group 0: the shard is missing"):
        whole.read_group("train", 0)
    shard.mkdir()
    with pytest.raises(StorageError, match=f"cannot read {shard}: Is a directory"):
        whole.read_group("train", 0)


def test_too_few_file_handles_are_no_damage(whole: PreparedSet, shard: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_handle = os.open(shard, os.O_RDONLY)
    os.close(next_handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_handle, hard))
    try:
        with pytest.raises(StorageError, match=os.strerror(errno.EMFILE)):
            whole.read_group("train", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def replaced(prepared: PreparedSet, table: pa.Table, sizes: tuple[int, ...], *, tells_size: bool = True) -> PreparedSet:
    """The set with these records in row groups of these sizes as its first shard, without checksums.

    So sets were written before there were any. With `tells_size` the manifest has the size of the new file.
    """
    split = prepared.manifest.splits["train"]
    path = Path(prepared.path) / split.shards[0].path
    with pq.ParquetWriter(path, table.schema) as writer:
        for start, size in zip(np.cumsum((0, *sizes)), sizes, strict=False):
            writer.write_table(table.slice(start, size))
    row_groups.open_shard.cache_clear()
    if not tells_size:
        return prepared
    first = split.shards[0].model_copy(update={"num_bytes": path.stat().st_size})
    splits = prepared.manifest.splits | {"train": split.model_copy(update={"shards": (first, *split.shards[1:])})}
    return PreparedSet(prepared.path, prepared.manifest.model_copy(update={"splits": splits}))


def test_a_sound_file_that_is_not_the_shard_is_named(whole: PreparedSet, shard: Path) -> None:
    table = pq.read_table(shard)
    sizes = tuple(whole.row_group("train", group).num_records for group in groups_of(whole))
    assert read_groups(replaced(whole, table, sizes), range(1)).num_tokens_R.min() > 0
    with pytest.raises(DamagedShardError, match=r"it has [\d,]+ bytes instead of"):
        replaced(whole, table, sizes, tells_size=False).read_group("train", 0)
    with pytest.raises(DamagedShardError, match=rf"it holds {len(table)} records in {len(sizes) + 1} row groups"):
        replaced(whole, table, (*sizes[:-1], 1, sizes[-1] - 1)).read_group("train", 0)
    with pytest.raises(DamagedShardError, match=r"row group 1: it holds 63 records instead of 64"):
        replaced(whole, table, (sizes[0], sizes[1] - 1, sizes[2] + 1, *sizes[3:])).read_group("train", 1)
    field = pa.field("key_hash", pa.int64(), nullable=False)
    other = table.set_column(1, field, table["key_hash"].cast(pa.int64(), safe=False))
    with pytest.raises(DamagedShardError, match="its columns are .*key_hash int64"):
        replaced(whole, other, sizes).read_group("train", 0)


def test_what_is_no_picture_is_named_by_the_row_group(tmp_path: Path) -> None:
    old = write_prepared(tmp_path, source_records(150), "jpeg")
    path = Path(old.row_group("train", 0).path)
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    table = table.set_column(2, table.schema.field("image"), [[images[0][:30], *images[1:]]])
    sizes = tuple(old.row_group("train", group).num_records for group in groups_of(old))
    old = replaced(old, table, sizes)
    with pytest.raises(DamagedShardError, match=f"{path}, row group 0: a record of it cannot be decoded"):
        read_groups(old, range(1))
    assert len(decode_records(old.read_group("train", 1, COLUMNS), old.manifest).key_hash_R) > 0


def test_a_damaged_row_group_is_left_out_only_when_asked(whole: PreparedSet, shard: Path) -> None:
    content = shard.read_bytes()
    start = pq.read_metadata(shard).row_group(0).column(2).data_page_offset
    shard.write_bytes(content[: start + 50] + bytes(20) + content[start + 70 :])
    row_groups.open_shard.cache_clear()
    with pytest.raises(DamagedShardError):
        whole.read("train", COLUMNS)
    rest = whole.read("train", COLUMNS, skips_damaged=True)
    assert len(rest) == NUM_RECORDS - 64 and len(whole.read("train", COLUMNS, 100, skips_damaged=True)) == 100


def test_lists_that_a_damaged_header_cut_short_are_noticed(whole: PreparedSet) -> None:
    table = whole.read_group("train", 0, COLUMNS)
    words = [row[:-1] for row in table["word_of_token"].to_pylist()]
    field = table.schema.field("word_of_token")
    cut = table.set_column(3, field, pa.array(words, field.type))
    with pytest.raises(ValueError, match="different lengths"):
        decode_records(cut, whole.manifest)
