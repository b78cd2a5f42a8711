"""A search as a person watches it: one live table, or a line as each trial ends where there is no terminal.

It goes to standard error, like a `Stage` of `reporting.progress`, and leaves one line when the search ends.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlim_ray.reporting.progress import duration, start_live

State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL"]

WORDS: dict[str, str] = {"RUNNING": "running", "COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
"""What a state is called on the screen."""
SEARCHED = "searched"
_REFRESH_PER_S = 2.0
_MOST_RUNNING = 8
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class TrialRow:
    """A trial as the console shows it."""

    number: int
    role: str
    """`searched`, or which reference it is"""
    policy: str
    """masking policy"""
    state: State
    samples: int
    """seen at its newest score"""
    scores: tuple[float, ...] = ()
    """newest score of each objective, lower is better; empty before the first rung"""
    reason: str | None = None
    """why it failed"""


class SearchTable:
    """Shows a search: `with SearchTable(24, 50_000) as table: table.update(rows)`.

    Args:
        num_trials: trials of the whole search.
        max_samples: samples that a trial sees which is not stopped.
        name: what is going on, one word ("search", "confirm").
        one: what each of them is called, before its number.
        objectives: names of the scores, the first one ranking the table.
        price_per_hour: what an hour of the cluster costs, in whatever currency; None tells no spend.
        samples_now: samples that a running trial has seen by now, for progress between rungs; called from a thread.
        stream: where it goes; standard error by default.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        num_trials: int,
        max_samples: int,
        *,
        name: str = "search",
        one: str = "trial",
        objectives: tuple[str, ...] = ("score",),
        price_per_hour: float | None = None,
        samples_now: Callable[[int], int] | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_trials = num_trials
        self._max_samples = max_samples
        self._name = name
        self._one = one
        self._objectives = objectives
        self._price_per_hour = price_per_hour
        self._samples_now = samples_now
        self._clock = clock
        self._console = Console(file=sys.stderr if stream is None else stream, highlight=False)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._rows: Sequence[TrialRow] = ()
        self._first_samples: int | None = None
        self._started = clock()

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._live = start_live(self._console, self.renderable, _REFRESH_PER_S)
        return self

    def update(self, rows: Sequence[TrialRow]) -> None:
        """Tell how all trials stand, in the order of their numbers; call it whenever one of them changed.

        What had been done at the first call, by an earlier start, does not count in the rate.
        """
        with self._lock:
            before = {row.number: row for row in self._rows}
            is_first = self._first_samples is None
            self._rows = rows
        if is_first:
            self._first_samples = _num_samples(self._now())
        if self._live is None and not is_first:
            for row in rows:
                if row.state != "RUNNING" and (row.number not in before or before[row.number].state == "RUNNING"):
                    self._print(self._ended_line(row))

    def renderable(self) -> Group:
        """The table as it stands now."""
        rows = self._now()
        lines = [f"{self._name}: {self._counts(rows)}", self._pace(rows)]
        if self._price_per_hour is not None:
            lines.append(self._spend(rows))
        texts = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
        return Group(*texts, *map(Text, self._best_lines(rows)), self._table(rows))

    def last_line(self) -> str:
        """The line that stays: what was done, in how long, at what rate and price."""
        rows = self._now()
        parts = [
            f"{len(rows):,} {self._one}s in {duration(self._elapsed())}",
            self._states(rows),
            self._rate_text(rows),
        ]
        if self._price_per_hour is not None:
            parts.append(f"spend {_money(self._cost(self._elapsed()))} at {self._price_per_hour:g} an hour")
        return f"{self._name}: {', '.join(parts)}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        # A search that failed leaves the screen to the one line that says why.
        if kind is None:
            self._print(self.last_line())

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _cost(self, seconds: float) -> float:
        return (self._price_per_hour or 0.0) * seconds / _SECONDS_PER_HOUR

    def _now(self) -> list[TrialRow]:
        """All trials with what they have seen by now."""
        with self._lock:
            rows = self._rows
        if self._samples_now is None:
            return list(rows)
        return [
            replace(row, samples=max(row.samples, self._samples_now(row.number))) if row.state == "RUNNING" else row
            for row in rows
        ]

    def _rate(self, rows: Sequence[TrialRow]) -> float:
        """Samples a second of this start, what trials wait for included."""
        seconds = self._elapsed()
        return max(0, _num_samples(rows) - (self._first_samples or 0)) / seconds if seconds > 0.0 else 0.0

    def _rate_text(self, rows: Sequence[TrialRow]) -> str:
        return f"{self._rate(rows):,.0f} samples/s"

    def _seconds_left(self, rows: Sequence[TrialRow]) -> tuple[float, bool] | None:
        """An estimate, and whether it is the most that can be left; None before there is a rate.

        A trial still to come is expected to see what those that ended did on average; before one has ended, all.
        """
        rate = self._rate(rows)
        if rate == 0.0:
            return None
        ended = [row.samples for row in rows if row.role == SEARCHED and row.state in ("COMPLETE", "PRUNED")]
        expected = sum(ended) / len(ended) if ended else float(self._max_samples)
        left = (self._num_trials - len(rows)) * expected
        for row in rows:
            if row.state == "RUNNING":
                goal = expected if row.role == SEARCHED else self._max_samples
                left += max(0.0, goal - row.samples)
        return left / rate, not ended

    def _counts(self, rows: Sequence[TrialRow]) -> str:
        return (
            f"{sum(row.state != 'RUNNING' for row in rows):,} of {self._num_trials:,} {self._one}s ended, "
            + self._states(rows, running=True)
        )

    def _states(self, rows: Sequence[TrialRow], *, running: bool = False) -> str:
        counts = {word: sum(row.state == state for row in rows) for state, word in WORDS.items()}
        return ", ".join(f"{num:,} {word}" for word, num in counts.items() if running or word != WORDS["RUNNING"])

    def _pace(self, rows: Sequence[TrialRow]) -> str:
        parts = [f"{_num_samples(rows):,} samples", self._rate_text(rows), f"{duration(self._elapsed())} so far"]
        left = self._seconds_left(rows)
        if left is not None:
            parts.append(f"{'at most' if left[1] else 'about'} {duration(left[0])} to go")
        return ", ".join(parts)

    def _spend(self, rows: Sequence[TrialRow]) -> str:
        spent = self._cost(self._elapsed())
        text = f"spend {_money(spent)} at {self._price_per_hour:g} an hour"
        left = self._seconds_left(rows)
        if left is None:
            return text
        return f"{text}, {'at most' if left[1] else 'about'} {_money(spent + self._cost(left[0]))} in the end"

    def _best(self, rows: Sequence[TrialRow], objective: int) -> TrialRow | None:
        """Only trials that saw the whole budget compare."""
        complete = [row for row in rows if row.state == "COMPLETE" and len(row.scores) > objective]
        return min(complete, key=lambda row: row.scores[objective], default=None)

    def _best_lines(self, rows: Sequence[TrialRow]) -> list[str]:
        lines = []
        for objective, name in enumerate(self._objectives):
            best = self._best(rows, objective)
            if best is None:
                return ["best so far: none has seen all its samples yet"]
            text = f"best so far: {self._one} {best.number} ({_name(best)}), {name} {best.scores[objective]:.4g}"
            lines.append(text + self._against_references(rows, best, objective))
        return lines

    def _against_references(self, rows: Sequence[TrialRow], best: TrialRow, objective: int) -> str:
        """How far the best is below each reference that has seen all its samples."""
        parts = [
            f"{1.0 - best.scores[objective] / row.scores[objective]:.1%} below {_name(row)}"
            for row in rows
            if row.role != SEARCHED and row is not best and row.state == "COMPLETE" and row.scores[objective] > 0.0
        ]
        return f": {', '.join(parts)}" if parts else ""

    def _ended_line(self, row: TrialRow) -> str:
        samples = f" after {row.samples:,} samples" if row.samples else ""
        text = f"{self._one} {row.number} ({_name(row)}, {row.policy}): {WORDS[row.state]}{samples}"
        if row.scores:
            text += ", " + ", ".join(
                f"{name} {score:.4g}" for name, score in zip(self._objectives, row.scores, strict=False)
            )
        if row.reason is not None:
            text += f": {row.reason}"
        best = self._best(self._rows, 0)
        if best is not None and best.number != row.number:
            text += f"; best so far: {self._one} {best.number}, {best.scores[0]:.4g}"
        return text

    def _table(self, rows: Sequence[TrialRow]) -> Table:
        """The references, the best trials, and those that run now."""
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
        for name in ("trial", "role", "policy", "state"):
            drawn.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if name == "trial" else "left")
        for name in ("samples", *self._objectives):
            drawn.add_column(name, no_wrap=True, justify="right")
        bests = {row.number for i in range(len(self._objectives)) if (row := self._best(rows, i)) is not None}
        running = [row.number for row in rows if row.state == "RUNNING"]
        shown = bests | set(running[:_MOST_RUNNING])
        for row in sorted((row for row in rows if row.number in shown or row.role != SEARCHED), key=_rank):
            state = "best" if row.number in bests else WORDS[row.state]
            scores = [f"{score:.4g}" for score in row.scores] or ["-"] * len(self._objectives)
            cells = (f"{row.number}", _name(row), row.policy, state, f"{row.samples:,}", *scores)
            drawn.add_row(*map(Text, cells), style="bold" if row.number in bests else None)
        if len(running) > _MOST_RUNNING:
            drawn.add_row("", f"and {len(running) - _MOST_RUNNING} more that run")
        return drawn


def _rank(row: TrialRow) -> tuple[bool, float, int]:
    """Trials that compare first, by score, then the others by number."""
    compares = row.state == "COMPLETE" and bool(row.scores)
    score = row.scores[0] if compares and math.isfinite(row.scores[0]) else math.inf
    return not compares, score, row.number


def _num_samples(rows: Sequence[TrialRow]) -> int:
    return sum(row.samples for row in rows)


def _name(row: TrialRow) -> str:
    return row.role.replace("_", " ")


def _money(amount: float) -> str:
    return f"{amount:,.2f}"
