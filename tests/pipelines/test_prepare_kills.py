"""`mlim-ray prepare`, killed at random moments: what is finished in the end equals what an undisturbed run makes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.data.rejected import rejected_pictures
from tests.pipelines.test_prepare import contents, write_source

pytestmark = [pytest.mark.cluster]

ROOT = Path(__file__).resolve().parents[2]
SOME, MANY = 3, 10
FLAGS = ("--image-size", "16", "--vocabulary-size", "300", "--keep-rejected", "--no-dashboard")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records for about forty tasks, some rejected, some duplicates."""
    folder = tmp_path_factory.mktemp("kills") / "in"
    for i in range(10):
        bad = {36 * j: {"image": image} for j, (image, _) in enumerate(rejected_pictures().values())}
        bad[131] = {"id": f"k{3_000 * i + 132}"}
        write_source(folder / f"{i}.parquet", 3_000, bad, first=3_000 * i)
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> dict[str, str]:
    out = source.parent / "undisturbed"
    with started(source, out) as process:
        assert process.wait(240) == 0
    return contents(out)


@contextmanager
def started(source: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running `mlim-ray prepare`; what it started is ended with it, by number."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with open(out.parent / f"{out.name}.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlim_ray.command_line.main", "prepare", str(source), str(out), *FLAGS],
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
    """How many tasks have left their result."""
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


REPEATED = pytest.mark.parametrize("num_wanted", [SOME, pytest.param(MANY, marks=pytest.mark.torture)])


@REPEATED
def test_a_driver_killed_again_and_again_leaves_the_set_of_an_undisturbed_run(
    source: Path, undisturbed: dict[str, str], num_wanted: int
) -> None:
    out = source.parent / f"driver{num_wanted}"
    moments = random.Random()
    num_kills = 0
    while num_kills < num_wanted:
        with started(source, out) as process:
            # The plan itself is one of the files.
            wanted = max(results(out), 1) + moments.randint(1, 2)
            if not wait_for_results(process, out, wanted):
                break
            assert not (out / "manifest.json").exists()
            num_kills += 1
    assert num_kills == num_wanted
    with started(source, out) as process:
        assert process.wait(240) == 0
    assert contents(out) == undisturbed
    assert {path.name for path in out.iterdir()} == {"manifest.json", "shards", "tokenizer", "quarantine", "origin"}


@REPEATED
def test_workers_killed_again_and_again_leave_the_set_of_an_undisturbed_run(
    source: Path, undisturbed: dict[str, str], num_wanted: int
) -> None:
    out = source.parent / f"workers{num_wanted}"
    moments = random.Random()
    num_kills = 0
    with started(source, out) as process:
        while num_kills < num_wanted and wait_for_results(process, out, results(out) + moments.randint(1, 2)):
            busy = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if any("ray::MapBatches" in word for word in child.cmdline())
            ]
            if busy:
                moments.choice(busy).send_signal(signal.SIGKILL)
                num_kills += 1
        assert process.wait(240) == 0, (out.parent / f"{out.name}.log").read_text()[-2_000:]
    assert num_kills == num_wanted
    assert contents(out) == undisturbed


def test_the_quarantine_of_the_undisturbed_run_is_whole(source: Path, undisturbed: dict[str, str]) -> None:
    rows = [
        row
        for path in sorted((source.parent / "undisturbed" / "quarantine").iterdir())
        for row in pq.read_table(path, columns=["source", "row", "reason"]).to_pylist()
    ]
    assert len(rows) == 10 * (len(rejected_pictures()) + 1) and len(
        {(row["source"], row["row"]) for row in rows}
    ) == len(rows)
