"""Many kills of the driver within one search, at random moments: what it finds is what it finds undisturbed.

How many: the environment variable MLIM_RAY_SEARCH_KILLS. The seed of the moments is printed; MLIM_RAY_KILLS_SEED
repeats it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines.search_runs import ROOT, SearchRun

pytestmark = [pytest.mark.cluster, pytest.mark.torture, pytest.mark.timeout(2 * 3_600)]

NUM_KILLS = int(os.environ.get("MLIM_RAY_SEARCH_KILLS", "10"))
MOST_S_LATER = 2.0


@pytest.fixture(autouse=True)
def moments() -> None:
    seed = int(os.environ.get("MLIM_RAY_KILLS_SEED", time.time_ns() % 1_000_000))
    print(f"MLIM_RAY_KILLS_SEED={seed}")
    random.seed(seed)


def struck(run: SearchRun, num_lines: int, *flags: str, loses_disk: bool = False) -> None:
    """Kill the search again and again, its whole length through, then let it end.

    Args:
        run: not started yet.
        num_lines: of the journal that an undisturbed search leaves.
        flags: of its first start.
        loses_disk: every second driver finds nothing of what the last one left on its machine.
    """
    try:
        run.start(*flags)
        for kill in range(NUM_KILLS):
            # Some kills come before the next line, most at some moment within a trial or the confirmation; none before
            # there is anything to resume.
            due = run.num_lines() + random.randint(0, 2 * num_lines // NUM_KILLS)
            run.wait_for_lines(min(max(1, due), num_lines - 4))
            try:
                run.driver.wait(random.uniform(0.0, MOST_S_LATER))
            except subprocess.TimeoutExpired:
                run.kill()
            else:
                pytest.fail(f"the search ended before kill {kill + 1}")
            if loses_disk and kill % 2:
                shutil.rmtree(run.folder / "state", ignore_errors=True)
            run.resume()
        run.finish()
    finally:
        run.end()


def check(run: SearchRun, undisturbed: SearchRun) -> None:
    """No trial is left open or run twice, and both tables are the undisturbed search's."""
    tables = run.tables()
    for table in tables:
        states = Counter(row[1] for row in table)
        assert set(states) <= {"COMPLETE", "PRUNED"}, states
        assert [row[0] for row in table] == list(range(len(table)))
    assert tables == undisturbed.tables()


def test_a_search_outlives_many_kills(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "struck"))
    struck(run, undisturbed_search.num_lines())
    check(run, undisturbed_search)


@pytest.mark.parametrize("loses_disk", [False, True], ids=["its machine stays", "its machine is lost"])
def test_a_search_on_s3_outlives_many_kills(
    undisturbed_search: SearchRun, tmp_path: Path, bucket: str, loses_disk: bool
) -> None:
    run = SearchRun(tmp_path, f"{bucket}/runs/struck")
    struck(run, undisturbed_search.num_lines(), loses_disk=loses_disk)
    check(run, undisturbed_search)
    assert not list((tmp_path / "state").glob("mlim-ray/*"))


def test_with_several_trials_at_a_time_the_confirmed_intervals_overlap(
    undisturbed_search: SearchRun, tmp_path: Path
) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "struck"))
    struck(run, undisturbed_search.num_lines(), "--search.max-concurrent-trials", "2")
    for table in run.tables():
        assert {row[1] for row in table} <= {"COMPLETE", "PRUNED"}
    ours, theirs = (search.resume().finish()["confirmation"]["arms"] for search in (run, undisturbed_search))
    by_role = {arm["role"]: arm["interval"] for arm in theirs}
    for arm in ours:
        if arm["role"] in ("paper", "light_only"):
            assert overlap(arm["interval"], by_role[arm["role"]])
    assert overlap(ours[0]["interval"], theirs[0]["interval"])


def test_the_benchmark_interrupts_a_search_and_compares(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    command = [sys.executable, "-m", "benchmarks.interrupted_search", undisturbed_search.out, "--out", str(record)]
    subprocess.run([*command, "--kills", "2", "--work", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    found = json.loads(record.read_text())
    assert len(found["kills"]) == 2 and found["changed"] == 0 and found["kills"][1]["trials_ended"] > 0
    assert all(arm["interval"] == arm["undisturbed"] and arm["overlap"] for arm in found["arms"]), found["arms"]


def overlap(one: list[float], other: list[float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
