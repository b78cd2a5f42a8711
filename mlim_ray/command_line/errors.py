"""Mistakes of the user as one plain line on standard error and an exit code; bugs keep their traceback."""

import argparse
import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from pydantic import ValidationError

from mlim_ray.config.wording import nearest, plain_problem

USER_ERROR = 2
INTERRUPTED = 130
READ_NO_FURTHER = 141
"""what a shell calls a program whose reader went away"""

_STDOUT = 1
_PATH_PROBLEMS = {
    FileNotFoundError: "no such file or folder; check the path",
    PermissionError: "permission denied; check who may read or write there",
    IsADirectoryError: "is a folder, expected a file",
    NotADirectoryError: "is no folder, expected one",
    FileExistsError: "exists already; choose another path",
}
_NEGATIVE_VALUE = re.compile(r"-(\d|\.\d|inf|nan)")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Around an entry point, as context or decorator: a mistake of the user ends the program with one line.

    ValueError and paths that cannot be used end with exit code 2, or with the error's own `exit_code`;
    Ctrl-C with 130 and the line that the KeyboardInterrupt carries; what is read no further, as by `| head`, with 141
    and no line. Any other exception is a bug and passes.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_read_no_further():
            raise
        # Else the interpreter would try once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        raise SystemExit(READ_NO_FURTHER) from None
    except KeyboardInterrupt as interrupt:
        _leave(str(interrupt) or "interrupted", INTERRUPTED)
    except Exception as error:
        # A remote worker's error arrives wrapped, with the worker's own error as its `cause`.
        cause = getattr(error, "cause", None)
        mistake = cause if isinstance(cause, Exception) else error
        line = plain_line(mistake)
        if line is None:
            raise
        _leave(line, getattr(mistake, "exit_code", USER_ERROR))


def plain_line(error: Exception) -> str | None:
    """The one line that tells a user's mistake; None for an error that is none of the user's making."""
    if isinstance(error, ValidationError):
        return ": ".join(filter(None, plain_problem(error)))
    if isinstance(error, ValueError):
        return str(error) or type(error).__name__
    for kind, problem in _PATH_PROBLEMS.items():
        if isinstance(error, kind):
            path = error.filename if error.filename is not None else error.args[0] if error.args else "a path"
            return f"{path}: {problem}"
    return None


class PlainParser(argparse.ArgumentParser):
    """An argument parser whose errors are a ValueError of one line, without a dump of the usage.

    Flags are never abbreviated; a flag may be written with `_` for `-`; negative numbers can be values.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the message as a ValueError (argparse would print the usage and exit)."""
        message = message.removeprefix("argument ")
        if message.endswith(": expected one argument"):
            flag = message.removesuffix(": expected one argument")
            message = f"{flag}: given no value, expected one; write {flag} VALUE"
        if message.startswith("the following arguments are required: "):
            message = f"missing {message.partition(': ')[2]}; see {self.prog} --help"
        raise ValueError(message)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse all of `args`; an unknown flag is a ValueError that names the nearest flag there is."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise ValueError(self._about_unknown(unknown))
        return parsed

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse does, once flags and negative values have the form that argparse knows."""
        return super().parse_known_args(self._tidy(sys.argv[1:] if args is None else args), namespace)

    def _tidy(self, args: Sequence[str]) -> list[str]:
        tidy: list[str] = []
        for index, arg in enumerate(args):
            if arg == "--":
                return [*tidy, *args[index:]]
            name, equals, value = arg.partition("=")
            kebab = name.replace("_", "-")
            if name.startswith("--") and kebab in self._option_string_actions:
                tidy.append(f"{kebab}{equals}{value}")
            elif tidy and _NEGATIVE_VALUE.match(arg) and self._takes_value(tidy[-1]):
                tidy[-1] = f"{tidy[-1]}={arg}"
            else:
                tidy.append(arg)
        return tidy

    def _takes_value(self, flag: str) -> bool:
        action = self._option_string_actions.get(flag)
        return action is not None and action.nargs is None

    def _all_flags(self) -> list[str]:
        flags = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                flags += [flag for parser in action.choices.values() for flag in parser._option_string_actions]
        return flags

    def _nearest_flags(self, name: str) -> list[str]:
        """The knobs of that name in any section, or else the flag that is spelt nearest."""
        flags = {flag.lstrip("-"): flag for flag in self._all_flags()}
        without_section = [flag for known, flag in flags.items() if known.endswith(f".{name}")]
        guess = nearest(name, flags)
        return without_section or ([flags[guess]] if guess else [])

    def _about_unknown(self, unknown: Sequence[str]) -> str:
        flag = next((arg for arg in unknown if arg.startswith("-")), None)
        if flag is None:
            return f"{unknown[0]}: not expected here; options are given as flags, see {self.prog} --help"
        name = flag.partition("=")[0]
        guesses = self._nearest_flags(name.lstrip("-").replace("_", "-"))
        mend = f"did you mean {' or '.join(guesses)}?" if guesses else f"see {self.prog} --help"
        return f"{name}: unknown flag; {mend}"


def _is_read_no_further() -> bool:
    """Whether it is the standard output that nobody reads any more."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _leave(line: str, exit_code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(" ".join(line.split()) + "\n")
    raise SystemExit(exit_code)
