"""`mlim-ray inspect SOURCE`: what a source holds, as lines, as JSON, and as a page."""

import argparse
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from mlim_ray.command_line.knob import knobs_of
from mlim_ray.command_line.knobs import apply_knobs
from mlim_ray.command_line.page_file import check_page_path
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage

if TYPE_CHECKING:
    from mlim_ray.data.inspection import Inspection

SHEET_RECORDS = 60
"""most accepted records, and most rejected ones, on a page"""
_QUIET_S = 1.5
"""what takes no longer shows no progress"""


def add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that only `inspect` has."""
    parser.add_argument(
        "--html", metavar="FILE", help="also write a page with a contact sheet to FILE, which ends in .html"
    )
    parser.add_argument(
        "--sample", metavar="N", type=_whole_number, default=1_000, help="records to look at (default: 1000)"
    )


def run_inspect(parsed: argparse.Namespace, auto_image_size: int) -> None:
    """Look at a sample of the source and say what was found; starts no Ray and writes nothing but the page.

    Raises ValueError for a mistake in the command, before anything is read where it can be told.
    """
    config = apply_knobs(PrepareConfig(), parsed)
    if parsed.html is not None:
        from mlim_ray.reporting.inspection_page import MARK

        check_page_path("--html", parsed.html, MARK, "inspect")

    from mlim_ray.data.contact import check_readable
    from mlim_ray.data.inspection import inspect
    from mlim_ray.data.sources import resolve_prepare_config
    from mlim_ray.reporting.inspection_lines import inspection_lines
    from mlim_ray.reporting.progress import say, say_json

    check_readable(parsed.source, config.image_folder, config.tokenizer)
    with _late_progress("inspect") as on_progress:
        found = inspect(
            parsed.source,
            resolve_prepare_config(config, auto_image_size),
            parsed.sample,
            num_examples=0 if parsed.html is None else SHEET_RECORDS,
            on_progress=on_progress,
        )
    for line in inspection_lines(found):
        say(line)
    next_command = _prepare_command(parsed.source, config)
    if parsed.html is not None:
        _write_page(parsed.html, found, next_command)
        say(f"page      {parsed.html}")
    say(f"next      {next_command}")
    if parsed.json:
        say_json(found.as_json())


def _write_page(path: str, found: "Inspection", next_command: str) -> None:
    from mlim_ray.reporting.inspection_page import render_inspection_page

    # A path may hold bytes that are no UTF-8.
    page = render_inspection_page(found, next_command).encode("utf-8", "replace")
    storage.write_bytes_atomically(storage.absolute(path), page)


@contextmanager
def _late_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error, but only of work that takes longer than a moment."""
    from mlim_ray.reporting.progress import Stage

    started = time.monotonic()
    stage: Stage | None = None
    with ExitStack() as stack:

        def advance(done: int, total: int) -> None:
            nonlocal stage
            if stage is None and time.monotonic() - started > _QUIET_S:
                stage = stack.enter_context(Stage(name, total, "records", already_done=done))
            if stage is not None:
                stage.advance(done)

        yield advance


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"given {text}, expected a whole number above 0")
    return int(text)


def _prepare_command(source: str, config: PrepareConfig) -> str:
    """The command that prepares what was inspected: with the same flags."""
    words = ["mlim-ray", "prepare", source, "prepared/"]
    default = PrepareConfig()
    for knob in knobs_of(PrepareConfig):
        name = knob.path[-1]
        value = getattr(config, name)
        if value != getattr(default, name):
            words += [knob.flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)
