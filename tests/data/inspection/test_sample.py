"""Which records are looked at: few, evenly spaced, each once, and never deep inside a huge row group."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.inspection.sample import MAX_PLACES, NUM_PLACES, plan_sample
from mlim_ray.data.sources import Slice, open_source, resolve_prepare_config
from mlim_ray.data.sources.source import SLICE_RECORDS, cut
from tests.data.pictures import encoded, noise


def rows_of(parts: list[Slice]) -> list[tuple[int, int]]:
    return [(part.file, row) for part in parts for row in range(part.start, part.stop)]


@given(sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=60), wanted=st.integers(1, 1_500))
def test_a_sample_is_part_of_the_source_and_no_record_is_in_it_twice(sizes: list[int], wanted: int) -> None:
    slices = [part for number, size in enumerate(sizes) for part in cut(number, 0, size)]
    sample = rows_of(plan_sample(slices, wanted, 0.0))
    assert len(set(sample)) == len(sample) and sample == sorted(sample)
    assert set(sample) <= set(rows_of(slices))
    assert sample == rows_of(plan_sample(slices, wanted, 0.0))
    assert len(sample) == min(wanted, sum(sizes)) or len(sample) > 0.5 * min(wanted, sum(sizes))
    assert len(sample) <= wanted or len(sample) == sum(sizes)


@pytest.mark.parametrize("num_records", [1_024, 5_000, 40_000, 10_000_000])
def test_a_sample_is_spread_over_the_whole_source(num_records: int) -> None:
    parts = plan_sample(cut(0, 0, num_records), 1_000, 1_000.0)
    assert sum(part.stop - part.start for part in parts) == 1_000
    assert NUM_PLACES <= len(parts) <= 2 * NUM_PLACES
    gaps = [b.start - a.start for a, b in pairwise(parts)]
    assert parts[0].start == 0 and max(gaps) <= 2 * num_records / len(parts) + 64
    assert parts[-1].stop > 0.85 * num_records


def test_many_small_files_are_not_all_opened() -> None:
    parts = plan_sample([Slice(number, 0, 3) for number in range(10_000)], 1_000, 0.0)
    assert len(parts) == MAX_PLACES and len({part.file for part in parts}) == MAX_PLACES


def test_a_huge_row_group_is_read_from_its_beginning_only() -> None:
    # Two row groups of 10 GB each.
    slices = [*cut(0, 0, 200_000, 8), *cut(0, 200_000, 400_000, 8)]
    parts = plan_sample(slices, 1_000, 50_000.0)
    assert sum(part.stop - part.start for part in parts) == 1_000
    assert {part.start // 200_000 for part in parts} == {0, 1}
    assert all(part.stop % 200_000 <= 2_000 for part in parts)
    # Of tiny records the whole group is within reach.
    assert max(part.start for part in plan_sample(slices, 1_000, 100.0)) > 350_000


def test_a_remote_source_is_read_from_the_beginning_of_its_slices() -> None:
    slices = cut(0, 0, 5_000)
    parts = plan_sample(slices, 1_000, 1_000.0, is_remote=True)
    assert [part.start for part in parts] == [part.start for part in slices]
    assert sum(part.stop - part.start for part in parts) == 1_000


def test_the_row_groups_of_a_real_file_are_told_apart(tmp_path: Path) -> None:
    image = encoded(noise(4, 4))
    table = pa.table({"image": [image] * 60_000, "text": ["t"] * 60_000})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20_000)
    config = resolve_prepare_config(PrepareConfig(), 16)
    slices = open_source(str(tmp_path), config).slices()
    assert max(part.stop - part.start for part in slices) > SLICE_RECORDS
    starts = {part.start for part in plan_sample(slices, 1_000, 1_000_000.0)}
    assert starts == {0, 20_000, 40_000} | {start + 64 for start in (0, 20_000, 40_000)} & starts
    assert {start // 20_000 for start in starts} == {0, 1, 2}
