"""`mlim-ray replay RUN/non_finite/step-N`: a kept batch's losses once more, record by record."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlim_ray.command_line.knob_help import WholeWordHelp

if TYPE_CHECKING:
    from mlim_ray.training.replay import ReplayedRecord

_MOST_ROWS = 20


def add_replay_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "replay",
        usage="%(prog)s PLACE [--precision P] [--json]",
        help="compute a batch that gave no finite gradient once more",
        description="Compute the batch that a run kept in RUN/non_finite/step-<number> again, from the weights that it "
        "met, and show each record whose loss is no number.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("place", metavar="PLACE", help="RUN/non_finite/step-<number>, local or s3://")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), help="compute in this precision (default: the run's own)"
    )
    parser.add_argument("--json", action="store_true", help="print all records as JSON, the last line of the output")
    parser.set_defaults(run=_replay)


def _replay(parsed: argparse.Namespace) -> None:
    from mlim_ray.data.contact import check_readable
    from mlim_ray.reporting.progress import say, say_json, table
    from mlim_ray.training.replay import replay

    check_readable(parsed.place)
    found = replay(parsed.place, parsed.precision)
    bad = found.non_finite
    say(f"step {found.step}: gradient norm {found.gradient_norm}, {len(found.records)} records")
    if bad:
        say(f"{len(bad)} of them have a loss that is no number:")
        table([_row(record) for record in bad[:_MOST_ROWS]])
    else:
        say("each record's own loss is finite here")
    if parsed.json:
        say_json({**asdict(found), "num_non_finite": len(bad)})


def _row(record: "ReplayedRecord") -> dict[str, Any]:
    values = asdict(record)
    return values | values.pop("others")
