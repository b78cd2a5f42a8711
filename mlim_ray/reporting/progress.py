"""What a person sees while a command runs: one line of progress a stage, plain lines, short tables.

Progress goes to standard error; lines, tables and the JSON summary go to standard output, which can be piped.
Where standard error is no terminal, a stage leaves one line when it ends and nothing before.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 80
_FILE_WIDTH = 240
_REFRESH_PER_S = 4.0


class Stage:
    """The progress of one stage: `with Stage("train", 2000, "steps") as stage: stage.advance(done)`.

    Args:
        name: what the stage does, one or two words.
        total: how many units it has; None where that is not known beforehand.
        unit: what is counted, in the plural ("records"); None for a stage that only takes its time.
        already_done: units that an earlier run did; they count as done but not in the rate.
        stream: where the line goes; standard error by default.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str | None,
        *,
        already_done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self._first = already_done
        self._done = already_done
        self._data_wait_ratio: float | None = None
        self._extra: dict[str, object] = {}
        self._clock = clock
        self._console = Console(file=sys.stderr if stream is None else stream, highlight=False)
        self._live: Live | None = None
        self._started = clock()

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._live = start_live(self._console, lambda: Text(self.line(), no_wrap=True, overflow="ellipsis"))
        return self

    def advance(self, done: int, *, data_wait_ratio: float | None = None, **extra: object) -> None:
        """Tell how far the stage is.

        Args:
            done: units done so far, those of an earlier run included.
            data_wait_ratio: share of the time that was spent waiting for data, in [0, 1].
            extra: further facts for the live line, such as `loss=2.1`.
        """
        self._done = done
        if data_wait_ratio is not None:
            self._data_wait_ratio = data_wait_ratio
        self._extra = extra

    def line(self) -> str:
        """The live line: what is done of how much, rate, ETA, data-wait share, further facts."""
        rate = self._rate()
        parts = [self._took()] if self.unit is None else [self._count(self.unit), _rate_text(rate, self.unit)]
        if self.total is not None and rate > 0.0:
            parts.append(f"ETA {duration(max(0, self.total - self._done) / rate)}")
        parts += self._wait()
        parts += [f"{name} {_cell(value)}" for name, value in self._extra.items()]
        return f"{self.name}: {', '.join(parts)}"

    def last_line(self) -> str:
        """The line that stays: what was done, in how long, rate, data-wait share."""
        if self.unit is None:
            return f"{self.name}: {self._took()}"
        parts = [f"{self._count(self.unit)} in {self._took()}", _rate_text(self._rate(), self.unit), *self._wait()]
        return f"{self.name}: {', '.join(parts)}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        # A stage that failed leaves the screen to the one line that says why.
        if kind is None:
            self._console.print(self.last_line(), soft_wrap=True, markup=False)

    def _rate(self) -> float:
        seconds = self._clock() - self._started
        return (self._done - self._first) / seconds if seconds > 0.0 else 0.0

    def _took(self) -> str:
        return duration(self._clock() - self._started)

    def _count(self, unit: str) -> str:
        of = "" if self.total is None or self.total == self._done else f" of {self.total:,}"
        return f"{self._done:,}{of} {unit}"

    def _wait(self) -> list[str]:
        return [] if self._data_wait_ratio is None else [f"data wait {self._data_wait_ratio:.0%}"]


def start_live(
    console: Console, renderable: Callable[[], RenderableType], refresh_per_s: float = _REFRESH_PER_S
) -> Live | None:
    """What a terminal shows and redraws until it is stopped; None where the console is no terminal."""
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    live = Live(
        get_renderable=renderable,
        console=console,
        transient=True,
        refresh_per_second=refresh_per_s,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    live.start()
    return live


class Stages:
    """One stage after another, for work that names its stages as it goes."""

    def __init__(self, unit: str, *, stream: TextIO | None = None) -> None:
        self._unit = unit
        self._stream = stream
        self._stage: Stage | None = None

    def __enter__(self) -> Self:
        return self

    def begin(self, name: str) -> Stage:
        """Begin the stage `name`, which counts nothing until it is told how far it is; ends the stage before it."""
        self._end(None, None, None)
        self._stage = Stage(name, None, None, stream=self._stream).__enter__()
        return self._stage

    def advance(self, name: str, done: int, total: int | None = None) -> None:
        """Tell how far the stage `name` is; a new name ends the stage before it."""
        stage = self._stage
        if stage is None or stage.name != name:
            stage = self.begin(name)
        stage.total, stage.unit = total, self._unit
        stage.advance(done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kind, error, trace)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stage is not None:
            self._stage.__exit__(kind, error, trace)
            self._stage = None


def say(text: str) -> None:
    """One plain line for the person at the screen, on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(summary: Mapping[str, object]) -> None:
    """The summary as one JSON object on one line; call it last. A number that is not finite becomes null."""
    say(json.dumps(_finite(summary), allow_nan=False))


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print a short table on standard output: a mapping a row, columns in order of first mention."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(_table(rows))


def console_width() -> int:
    """Characters of a line of standard output: the terminal's, or plenty where a file or a pipe takes it."""
    return Console(file=sys.stdout).width if sys.stdout.isatty() else _FILE_WIDTH


def table_text(rows: Sequence[Mapping[str, object]], width: int = _PLAIN_WIDTH) -> str:
    """The table as text of at most `width` columns."""
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(_table(rows))
    return capture.get()


def _table(rows: Sequence[Mapping[str, object]]) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        is_number = all(isinstance(row.get(name), int | float | None) for row in rows)
        drawn.add_column(
            Text(name.replace("_", " ")),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        drawn.add_row(*(Text(_cell(row.get(name))) for name in names))
    return drawn


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rate_text(rate: float, unit: str) -> str:
    return f"{rate:,.0f} {unit}/s" if rate >= 10.0 else f"{rate:.2g} {unit}/s"


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `4.0 s`, `2:01 min`, `1:02:03`."""
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
