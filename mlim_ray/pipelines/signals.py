"""SIGTERM and Ctrl-C: the first one asks, a second one does not wait."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

RESUMABLE = 75
"""exit code of a run that was told to stop and can be resumed (EX_TEMPFAIL of sysexits.h)"""


class Stopped(ValueError):
    """The run was ended by what lies outside it, and goes on with --resume."""

    exit_code = RESUMABLE


class Terminated(BaseException):
    """SIGTERM, where what is called takes any Exception for an error of its own."""


@contextlib.contextmanager
def stopping(name: Callable[[], str], kind: type[BaseException] = Stopped) -> Iterator[None]:
    """Turn SIGTERM into Stopped, or another kind, so that all that was started is ended; `name` tells what to say."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise kind(name())

    with _handlers({signal.SIGTERM: stop}):
        yield


class StopRequest:
    """While open, the first SIGTERM or Ctrl-C only sets `signal_name`; a second one acts as if this were not here."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._handlers: contextlib.AbstractContextManager[None] | None = None

    def __enter__(self) -> "StopRequest":
        self._handlers = _handlers({signal.SIGTERM: self._asked, signal.SIGINT: self._asked})
        self._handlers.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._handlers is not None:
            self._handlers.__exit__(*exception)
            self._handlers = None

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self.__exit__(None, None, None)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell's background job starts so, and could not be ended by a second one.
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _handlers(wanted: dict[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    # Elsewhere Python takes no handlers, and signals go to the main thread anyway.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
