"""Small Parquet files that ask for much memory."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, clean
from mlim_ray.data.images import MAX_ENCODED_BYTES
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.data.sources.lines import MAX_LINE_BYTES
from tests.data.pictures import encoded, noise

ROOT = Path(__file__).resolve().parents[3]
MAX_MEMORY_BYTES = 1_500_000_000
CONFIG = resolve_prepare_config(PrepareConfig(), 16)
CODE = """
import json, sys
from pathlib import Path
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.sources import open_source, resolve_prepare_config

source = open_source(sys.argv[1], resolve_prepare_config(PrepareConfig(), 16))
sizes = [len(record.image) for part in source.slices() for batch in source.read(part) for record in batch]
line, = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([sizes, 1024 * int(line.split()[1])]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("is_declared", [True, False])
def test_a_value_that_is_stored_once_and_stands_in_every_row_takes_little_memory(
    tmp_path: Path, is_declared: bool
) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 40, pa.int32()), pa.array([bytes(60_000_000)]))
    rows = pa.table({"image": column, "text": ["red"] * 40})
    path = tmp_path / "bomb.parquet"
    pq.write_table(rows, path, compression="zstd", store_schema=is_declared, dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 100_000
    done = subprocess.run([sys.executable, "-c", CODE, path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    sizes, peak_bytes = json.loads(done.stdout)
    assert sizes == [60_000_000] * 40
    assert peak_bytes < MAX_MEMORY_BYTES


def test_huge_values_are_rejected_with_their_size(tmp_path: Path) -> None:
    picture = encoded(noise(16, 16))
    rows = pa.table(
        {
            "key": ["a", "k" * (MAX_LINE_BYTES + 1), "c", "d"],
            "image": [picture, picture, bytes(MAX_ENCODED_BYTES + 1), picture],
            "text": ["t" * (MAX_LINE_BYTES + 1), "blue", "green", "red"],
        }
    )
    pq.write_table(rows, tmp_path / "a.parquet", compression="zstd")
    source = open_source(str(tmp_path), CONFIG)
    records = [record for part in source.slices() for batch in source.read(part) for record in batch]
    cleaned = clean(records, CleaningRules.of(CONFIG, False))
    assert [(record.row, record.reason.value, record.detail) for record in cleaned.rejected] == [
        (0, "too_long", f"text: {MAX_LINE_BYTES + 1} bytes; at most {MAX_LINE_BYTES}"),
        (1, "too_long", f"key: {MAX_LINE_BYTES + 1} bytes; at most {MAX_LINE_BYTES}"),
        (2, "too_many_bytes", f"{MAX_ENCODED_BYTES + 1} bytes; at most {MAX_ENCODED_BYTES}"),
    ]
    assert [record.key for record in cleaned.accepted] == ["d"]
