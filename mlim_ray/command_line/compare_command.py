"""`mlim-ray compare RUN RUN ...`: curves, the configs' differences and the scores of any runs beside each other."""

import argparse
from typing import Any

from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.page_file import check_page_path


def add_compare_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "compare",
        usage="%(prog)s RUN RUN ... [--out PAGE.html] [--json]",
        help="show the scores, the differing knobs and the curves of runs beside each other",
        description="Show runs beside each other: how far they are, the knobs in which they differ, and all scores of "
        "their evaluation.json, those of mlim-ray evaluate included; on the page the curves as well.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders, local or s3://, finished or not")
    parser.add_argument("--out", metavar="PAGE.html", help="also write a page, local or s3://")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    parser.set_defaults(run=_compare)


def _compare(parsed: argparse.Namespace) -> None:
    paths = [path.rstrip("/") for path in parsed.runs]
    if len(set(paths)) < max(2, len(paths)):
        raise ValueError(
            f"RUN: given {' '.join(parsed.runs)}, expected two or more different run folders; name another"
        )

    from mlim_ray.data import storage
    from mlim_ray.data.contact import check_readable, check_writable
    from mlim_ray.reporting.comparison_page import MARK
    from mlim_ray.reporting.progress import console_width, say, say_json
    from mlim_ray.reporting.result_lines import result_lines
    from mlim_ray.reporting.runs_comparison import read_compared, render_runs_page, sections_of

    check_readable(*paths)
    if parsed.out is not None:
        check_page_path("--out", parsed.out, MARK, "compare")
        check_writable(parsed.out.rpartition("/")[0])
    runs = [read_compared(path) for path in paths]
    sections = sections_of(runs)
    for section in sections:
        for line in result_lines(section.heading, section.result, console_width()):
            say(line)
        say("")
    if parsed.out is not None:
        page = render_runs_page(runs, sections).encode("utf-8", "replace")
        storage.write_bytes_atomically(storage.absolute(parsed.out), page)
        say(f"page: {parsed.out}")
    if parsed.json:
        say_json({section.heading.lower(): section.result["tables"][0]["rows"] for section in sections})
