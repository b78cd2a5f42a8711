"""`mlim-ray embed` and `fill`, killed at random moments: in the end there is what an undisturbed run makes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.rejected import rejected_pictures
from tests.model_folder import write_model
from tests.pipelines.test_prepare import contents, write_source

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
SOME, MANY = 1, 8
FLAGS = {"embed": (), "fill": ("--attribute", "hue")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records for about thirty slices, some rejected, some duplicates, some without the attribute."""
    folder = tmp_path_factory.mktemp("kills") / "in"
    for i in range(10):
        bad = {36 * j: {"image": image} for j, (image, _) in enumerate(rejected_pictures().values())}
        bad[131] = {"id": f"k{3_000 * i + 132}"}
        path = write_source(folder / f"{i}.parquet", 3_000, bad, first=3_000 * i)
        table = pq.read_table(path)
        hues = [("red", "navy blue", None)[row % 3] for row in range(len(table))]
        pq.write_table(table.append_column("hue", pa.array(hues, pa.string())), path, row_group_size=500)
    write_model(folder.parent / "run", ["shirt number 0 1 2 3 4 5 6 7 8 9"])
    return folder


@contextmanager
def started(command: str, source: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running command; what it started is ended with it, by number."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    words = [command, str(source.parent / "run"), str(source), str(out), *FLAGS[command], "--no-dashboard"]
    with open(out.parent / f"{out.name}.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlim_ray.command_line.main", *words],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    below: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            # Ray's agents outlive a killed driver, and only its tree tells which they are.
            below = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        for child in below:
            if child.is_running():
                child.kill()
        psutil.wait_procs(below, 20)


def results(out: Path) -> int:
    """How many pieces have left their result."""
    return sum(1 for _ in (out / ".staging").glob("*.json")) if (out / ".staging").exists() else 0


def wait_for_results(process: subprocess.Popen[bytes], out: Path, wanted: int) -> bool:
    """Whether the run is still going once so many results are there."""
    while process.poll() is None:
        if results(out) >= wanted:
            return True
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    return False


@pytest.mark.parametrize("command", ["embed", "fill"])
@pytest.mark.parametrize("num_wanted", [SOME, pytest.param(MANY, marks=pytest.mark.torture)])
def test_a_command_killed_again_and_again_leaves_what_an_undisturbed_one_does(
    source: Path, command: str, num_wanted: int
) -> None:
    undisturbed, out = source.parent / f"{command}-{num_wanted}-once", source.parent / f"{command}-{num_wanted}"
    with started(command, source, undisturbed) as process:
        assert process.wait(400) == 0, undisturbed.with_name(f"{undisturbed.name}.log").read_text()[-2_000:]
    moments = random.Random()
    num_kills = 0
    while num_kills < num_wanted:
        with started(command, source, out) as process:
            # The plan itself is one of the files.
            wanted = max(results(out), 1) + moments.randint(1, 32 // num_wanted)
            if not wait_for_results(process, out, wanted):
                break
            assert not (out / "manifest.json").exists()
            num_kills += 1
    assert num_kills >= 1
    with started(command, source, out) as process:
        assert process.wait(400) == 0, out.with_name(f"{out.name}.log").read_text()[-2_000:]
    assert contents(out) == contents(undisturbed)
    keys = [key for part in sorted((out / "parts").iterdir()) for key in pq.read_table(part)["key"].to_pylist()]
    assert len(keys) == len(set(keys)) > 9_000
