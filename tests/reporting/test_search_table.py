"""The console of a search: the live table in a terminal, quiet lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import threading

import pytest
from rich.console import Console

from mlim_ray.reporting.search_table import SearchTable, TrialRow

PAPER = TrialRow(0, "paper", "mam", "COMPLETE", 900, (0.5,))
LIGHT = TrialRow(1, "light_only", "mam", "COMPLETE", 900, (0.8,))
WEAK = TrialRow(2, "searched", "independent", "PRUNED", 100, (0.9,))
BEST = TrialRow(3, "searched", "alternating", "COMPLETE", 900, (0.4,))
BROKEN = TrialRow(4, "searched", "mam", "FAIL", 0, (), "out of memory: 3 GB asked for")
RUNS = TrialRow(5, "searched", "mam", "RUNNING", 100, (0.7,))
ALL = [PAPER, LIGHT, WEAK, BEST, BROKEN, RUNS]


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shown(table: SearchTable, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    console.print(table.renderable())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_has_counts_pace_spend_and_the_best_against_the_references(clock: Clock) -> None:
    table = SearchTable(8, 900, price_per_hour=3.6, samples_now={5: 300}.__getitem__, stream=io.StringIO(), clock=clock)
    table.update([])
    clock.now = 320.0
    table.update(ALL)
    lines = shown(table)
    assert lines[0] == "search: 5 of 8 trials ended, 1 running, 3 done, 1 pruned, 1 failed"
    # 900 + 900 + 100 + 900 + 300 samples in 320 s; the searched trials that ended saw 500 on average, and one that runs
    # and two to come are expected to see as many: 200 + 1,000 at 9.69 a second.
    assert lines[1] == "3,100 samples, 10 samples/s, 5:20 min so far, about 2:04 min to go"
    assert lines[2] == "spend 0.32 at 3.6 an hour, about 0.44 in the end"
    assert " ".join(lines[3:5]) == (
        "best so far: trial 3 (searched), score 0.4: 20.0% below paper, 50.0% below light only"
    )
    rows = [line.split() for line in lines[7:]]
    assert [row[0] for row in rows] == ["3", "0", "1", "5"], "best first, then the references, then what runs"
    assert rows[0][1:] == ["searched", "alternating", "best", "900", "0.4"]
    assert rows[3][1:] == ["searched", "mam", "running", "300", "0.7"]
    assert all(len(line) <= 80 for line in lines)


def test_before_any_trial_ended_what_is_to_go_is_the_most_that_can_be(clock: Clock) -> None:
    table = SearchTable(2, 900, stream=io.StringIO(), clock=clock)
    table.update([])
    clock.now = 10.0
    table.update([TrialRow(0, "paper", "mam", "RUNNING", 100, (0.9,))])
    lines = shown(table)
    assert lines[1] == "100 samples, 10 samples/s, 10.0 s so far, at most 2:50 min to go"
    assert lines[2] == "best so far: none has seen all its samples yet"
    assert not any("spend" in line for line in lines)


def test_what_an_earlier_start_did_does_not_count_in_the_rate(clock: Clock) -> None:
    table = SearchTable(3, 900, stream=io.StringIO(), clock=clock)
    table.update([PAPER])
    clock.now = 10.0
    table.update([PAPER, TrialRow(1, "light_only", "mam", "RUNNING", 100, (0.9,))])
    assert shown(table)[1].startswith("1,000 samples, 10 samples/s")


def test_each_objective_of_several_has_its_best(clock: Clock) -> None:
    table = SearchTable(2, 900, objectives=("mlm", "recon"), stream=io.StringIO(), clock=clock)
    table.update(
        [
            TrialRow(0, "paper", "mam", "COMPLETE", 900, (0.5, 0.2)),
            TrialRow(1, "searched", "mam", "COMPLETE", 900, (0.4, 0.3)),
        ]
    )
    lines = shown(table)
    assert lines[2] == "best so far: trial 1 (searched), mlm 0.4: 20.0% below paper"
    assert lines[3] == "best so far: trial 0 (paper), recon 0.2"
    assert lines[4].split()[-2:] == ["mlm", "recon"]


def test_a_hundred_trials_at_a_time_still_fit_a_screen(clock: Clock) -> None:
    table = SearchTable(100, 900, stream=io.StringIO(), clock=clock)
    table.update([TrialRow(number, "searched", "mam", "RUNNING", 0) for number in range(100)])
    lines = shown(table)
    assert len(lines) < 24 and "92 more" in lines[-1]


def test_without_a_terminal_a_trial_leaves_one_line_when_it_ends(clock: Clock) -> None:
    stream = io.StringIO()
    with SearchTable(6, 900, price_per_hour=3.6, stream=stream, clock=clock) as table:
        table.update([PAPER])
        assert stream.getvalue() == "", "what an earlier start did was told by it"
        table.update([PAPER, TrialRow(1, "light_only", "mam", "RUNNING", 100, (0.9,))])
        table.update([PAPER, LIGHT, TrialRow(2, "searched", "independent", "RUNNING", 0)])
        table.update([PAPER, LIGHT, WEAK, BEST, BROKEN])
        clock.now = 100.0
    assert stream.getvalue().splitlines() == [
        "trial 1 (light only, mam): done after 900 samples, score 0.8; best so far: trial 0, 0.5",
        "trial 2 (searched, independent): pruned after 100 samples, score 0.9; best so far: trial 3, 0.4",
        "trial 3 (searched, alternating): done after 900 samples, score 0.4",
        "trial 4 (searched, mam): failed: out of memory: 3 GB asked for; best so far: trial 3, 0.4",
        "search: 5 trials in 1:40 min, 3 done, 1 pruned, 1 failed, 19 samples/s, spend 0.10 at 3.6 an hour",
    ]


def test_a_search_that_fails_leaves_the_screen_to_the_error() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError), SearchTable(6, 900, stream=stream):
        raise ValueError("one plain line")
    assert stream.getvalue() == ""


def read_all(terminal: int, into: list[bytes]) -> None:
    """What is written to a terminal until its other end is closed, which Linux tells as an error."""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 1 << 16):
            into.append(part)


def test_a_terminal_sees_one_table_live_and_keeps_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("LINES", "30")):
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    parts: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(ours, parts))
    reader.start()
    with os.fdopen(theirs, "w") as stream, SearchTable(6, 900, stream=stream) as table:
        table.update([])
        table.update(ALL)
    reader.join()
    os.close(ours)
    text = b"".join(parts).decode()
    assert "5 of 6 trials ended, 1 running" in text
    assert "alternating" in text and "20.0% below paper" in text
    assert "trial 1 (light only" not in text, "lines are for what is no terminal"
    left = text.rpartition("\x1b[2K")[2].replace("\x1b[?25h", "")
    assert left.strip().startswith("search: 6 trials in ") and left.strip().count("\n") == 0


def test_runs_of_the_confirmation_are_not_taken_for_the_trials_of_the_search(clock: Clock) -> None:
    stream = io.StringIO()
    with SearchTable(2, 900, name="confirm", one="confirming run", stream=stream, clock=clock) as table:
        table.update([])
        table.update([PAPER])
    first, last = stream.getvalue().splitlines()
    assert first == "confirming run 0 (paper, mam): done after 900 samples, score 0.5"
    assert last.startswith("confirm: 1 confirming runs in ")
