"""From slices to buckets: every record once, in order, whether or not a stage lies between."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.data import shuffle as module
from mlim_ray.data.shuffle import ENOUGH_CELLS, Shuffle
from mlim_ray.data.staging import SCHEMA, first_of_key
from mlim_ray.data.storage_error import StorageError

Slices = list[list[int]]


def rows_of(key_hashes: list[int], number: int) -> pa.Table:
    """Accepted records of a slice, each with a picture that says where it comes from."""
    empty = {field.name: None for field in SCHEMA} | {"pixel_sums": [0] * 6, "attributes": []}
    rows = [
        {
            **empty,
            "key": f"k{key_hash}",
            "key_hash": key_hash,
            "slice": number,
            "row": row,
            "image": picture_of(key_hash, number, row),
        }
        for row, key_hash in enumerate(key_hashes)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def picture_of(key_hash: int, number: int, row: int) -> bytes:
    """Of no, one or two times some length."""
    return f"{key_hash} {number} {row}".encode() * (row % 3)


def shuffled(folder: Path, slices: Slices, num_buckets: int, enough_cells: int) -> tuple[Shuffle, list[pa.Table]]:
    """All buckets, after all stages."""
    with patch.object(module, "ENOUGH_CELLS", enough_cells):
        shuffle = Shuffle.plan(str(folder), len(slices), num_buckets)
    for number, key_hashes in enumerate(slices):
        shuffle.write_slice(number, [rows_of(key_hashes, number)] if key_hashes else [])
    for piece in range(shuffle.num_pieces):
        shuffle.regroup(piece)
    return shuffle, [shuffle.read_bucket(bucket) for bucket in range(num_buckets)]


@settings(max_examples=30)
@given(
    slices=st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=8), min_size=1, max_size=9),
    num_buckets=st.integers(1, 11),
)
def test_a_stage_between_changes_no_bucket(
    tmp_path_factory: pytest.TempPathFactory, slices: Slices, num_buckets: int
) -> None:
    folder = tmp_path_factory.mktemp("shuffle")
    direct, expected = shuffled(folder / "direct", slices, num_buckets, ENOUGH_CELLS)
    regrouped, found = shuffled(folder / "regrouped", slices, num_buckets, 0)
    assert direct.num_pieces == 0 and (regrouped.num_pieces > 0) == (num_buckets > 1)
    assert all(one.equals(other) for one, other in zip(found, expected, strict=True))
    # Independently: sorted by hash, then by place; of a key the first one counts.
    places = [(key, number, row) for number, keys in enumerate(slices) for row, key in enumerate(keys)]
    rows = [row for table in found for row in table.to_pylist()]
    assert [(row["key_hash"], row["slice"], row["row"]) for row in rows] == sorted(places)
    assert all(
        row["image"] == f"{row['key_hash']} {row['slice']} {row['row']}".encode() * (row["row"] % 3) for row in rows
    )
    num_first = sum(int(first_of_key(table).sum()) for table in found)
    assert num_first == len({key for key, _, _ in places})


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_pieces_are_as_large_as_slices_and_reads_few(num_slices: int, num_buckets: int) -> None:
    shuffle = Shuffle.plan("staging", num_slices, num_buckets)
    num_cells = num_slices * num_buckets
    if num_cells <= ENOUGH_CELLS or num_buckets == 1:
        assert (shuffle.num_pieces, shuffle.num_reads) == (0, 2 * num_cells)
        return
    # A piece reads one of `r` ranges of at most `r` slices; each range is read of every slice, each piece by cells.
    root = math.ceil(math.sqrt(num_buckets))
    num_ranges = math.ceil(num_buckets / root)
    num_groups = math.ceil(num_slices / num_ranges)
    assert shuffle.num_pieces == num_ranges * num_groups
    assert shuffle.num_reads == 2 * (num_slices * num_ranges + num_groups * num_buckets)


def test_a_hundred_million_records_take_a_hundredth_of_the_reads() -> None:
    # As many slices and buckets as `benchmarks/plan.py` finds for pictures of 224 pixels.
    shuffle = Shuffle.plan("staging", 100_000, 80_000)
    assert 2 * shuffle.num_slices * shuffle.num_buckets > 100 * shuffle.num_reads
    assert shuffle.num_pieces < 2 * shuffle.num_slices


def test_equal_work_writes_equal_bytes_and_what_is_cut_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    slices = [rng.integers(0, 2**63, 20).tolist() for _ in range(6)]
    shuffle, _ = shuffled(tmp_path, slices, 9, 0)
    names = sorted(tmp_path.glob("group-*"))
    before = [path.read_bytes() for path in names]
    for number, piece in itertools.product(range(2), range(shuffle.num_pieces)):
        assert len(shuffle.regroup(piece)) == 1, number
    assert [path.read_bytes() for path in names] == before
    names[0].write_bytes(before[0][:-1])
    with pytest.raises(StorageError, match="it was cut"):
        for bucket in range(9):
            shuffle.read_bucket(bucket)
