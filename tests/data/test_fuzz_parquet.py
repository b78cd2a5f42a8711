"""Damaged Parquet files as a source: every record in one bucket, or one plain line that names the file."""

import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.sources import open_source, resolve_prepare_config
from tests.data.fuzzing import damaged
from tests.data.pictures import encoded, noise

ROOT = Path(__file__).resolve().parents[2]
CONFIG = resolve_prepare_config(PrepareConfig(), 16)
NUM_SLOW = int(os.environ.get("MLIM_FUZZ", "3000"))


@cache
def good_files() -> list[bytes]:
    """The same records in different forms of Parquet."""
    table = pa.table(
        {
            "key": [f"k{i}" for i in range(12)],
            "image": [encoded(noise(10, 10, i)) for i in range(12)],
            "title": [f"red shirt {i}" for i in range(12)],
            "split": pa.array(["train", "val", "test"] * 4).dictionary_encode(),
        }
    )
    struct = table.set_column(
        1,
        "image",
        pa.StructArray.from_arrays([table["image"].combine_chunks(), pa.nulls(12, pa.string())], ["bytes", "path"]),
    )
    return [
        written(table),
        written(table, compression="zstd", row_group_size=5),
        written(table, compression="none", use_dictionary=False, data_page_version="2.0"),
        written(struct, compression="gzip", write_page_index=True),
    ]


def written(table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def check(path: Path, data: bytes) -> str:
    """What became of a file of these bytes. Anything but a ValueError that names it is a fault."""
    path.write_bytes(data)
    try:
        source = open_source(str(path), CONFIG)
        rules = CleaningRules.of(CONFIG, source.columns.split is not None)
        for part in source.slices():
            num_read = 0
            for records in source.read(part):
                cleaned = clean(records, rules)
                assert len(cleaned.accepted) + len(cleaned.rejected) == len(records)
                num_read += len(records)
            # That a file holds fewer rows than it said is found where the slices are counted.
            assert num_read <= part.stop - part.start
    except ValueError as error:
        assert str(path) in str(error) or path.name in str(error), error
        assert "\n" not in str(error), error
        return "refused"
    return "read"


@pytest.mark.parametrize("number", range(4))
def test_whole_files_are_read(tmp_path: Path, number: int) -> None:
    assert check(tmp_path / "whole.parquet", good_files()[number]) == "read"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True))
def test_cut_files_are_refused_by_name(tmp_path: Path, number: int, ratio: float) -> None:
    whole = good_files()[number]
    assert check(tmp_path / "cut.parquet", whole[: int(len(whole) * ratio)]) == "refused"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**64))
def test_damaged_files_are_read_or_refused_by_name(tmp_path: Path, seed: int) -> None:
    check(tmp_path / "damaged.parquet", damaged(good_files(), random.Random(seed)))


def test_a_name_of_no_utf8_is_refused_by_name(tmp_path: Path) -> None:
    whole = good_files()[0]
    assert check(tmp_path / "named.parquet", whole.replace(b"title", b"ti\xffle")) == "refused"


def test_a_flipped_bit_is_found_where_pages_have_checksums(tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(noise())], "title": ["the red shirt"]})
    whole = written(table, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True)
    place = whole.index(b"the red shirt") + 4
    assert check(tmp_path / "whole.parquet", whole) == "read"
    assert check(tmp_path / "flipped.parquet", whole[:place] + b"b" + whole[place + 1 :]) == "refused"


def fuzz(folder: Path, first_seed: int, stop_seed: int) -> None:
    """Write each seed before it is tried, so that who started this knows where it died; at the end the counts."""
    files = good_files()
    found = {"read": 0, "refused": 0}
    for seed in range(first_seed, stop_seed):
        (folder / "seed").write_text(str(seed))
        found[check(folder / "damaged.parquet", damaged(files, random.Random(seed)))] += 1
    print(json.dumps(found))


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), "0", str(NUM_SLOW)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"seed {(tmp_path / 'seed').read_text()}: {done.returncode} {done.stderr[-2_000:]}"
    found = json.loads(done.stdout)
    assert found["read"] > 0 and found["refused"] > NUM_SLOW // 2


CODE = """
import sys
from pathlib import Path
from tests.data.test_fuzz_parquet import fuzz
fuzz(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
"""
