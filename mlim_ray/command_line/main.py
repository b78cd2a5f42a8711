"""`mlim-ray prepare SOURCE OUT` and `mlim-ray inspect SOURCE`.

What does the work is imported once the command line is known to be right, so that `--help` and errors come
at once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from mlim_ray.command_line.errors import PlainParser, plain_errors
from mlim_ray.command_line.experiment import add_address_flags, address_of
from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.knobs import add_knobs, apply_knobs
from mlim_ray.config.prepare import PrepareConfig

if TYPE_CHECKING:
    from mlim_ray.pipelines.prepare import PrepareSummary

_SOURCE = (
    "Parquet file or folder, CSV or TSV with an image folder, generated:NUM_RECORDS, or a prepared set; local or s3://"
)
_TINY_IMAGE_SIZE = 32
"""Picture side of the model that a machine without a GPU trains: what `auto` means without a model."""


@plain_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """The program `mlim-ray`: exit code 0, 2 for a mistake of the user, 3 for too many rejected records."""
    parsed = _parser().parse_args(argv)
    parsed.run(parsed)


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="mlim-ray",
        usage="mlim-ray {prepare,inspect} SOURCE [...]",
        description="From raw image-text records to a set that MLIM can be trained on.",
        formatter_class=WholeWordHelp,
        epilog="Training and search are the files in experiments/; each has --help.",
    )
    commands = parser.add_subparsers(prog="mlim-ray", dest="command", metavar="COMMAND", required=True)
    prepare = _command(commands, "prepare", "SOURCE OUT", "read, clean and tokenise SOURCE into a prepared set in OUT")
    prepare.add_argument("out", metavar="OUT", help="folder of the prepared set, local or s3://")
    prepare.add_argument("--overwrite", action="store_true", help="replace another set that lies in OUT")
    add_address_flags(prepare)
    prepare.set_defaults(run=_prepare)
    inspect = _command(commands, "inspect", "SOURCE", "show what SOURCE holds and which columns would be used")
    inspect.set_defaults(run=_inspect)
    return parser


def _command(commands: Any, name: str, arguments: str, about: str) -> PlainParser:
    parser: PlainParser = commands.add_parser(
        name,
        usage=f"%(prog)s {arguments} [--flag VALUE ...]",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    add_knobs(parser, PrepareConfig)
    return parser


def _prepare(parsed: argparse.Namespace) -> None:
    config = apply_knobs(PrepareConfig(), parsed)
    address = address_of(parsed)
    for name in ("source", "out"):
        if not getattr(parsed, name).strip():
            raise ValueError(f"{name.upper()}: given nothing, expected a path; name the {name} of the records")

    from mlim_ray.data.contact import check_readable, check_writable
    from mlim_ray.data.sources import open_source, resolve_prepare_config

    check_readable(parsed.source, parsed.out, config.image_folder, config.tokenizer)
    config = resolve_prepare_config(config, _TINY_IMAGE_SIZE)
    open_source(parsed.source, config)  # a source that cannot be is refused before Ray starts

    from mlim_ray.pipelines.cluster import connect
    from mlim_ray.pipelines.prepare import prepare, present_summary
    from mlim_ray.reporting.progress import Stages, say, say_json

    summary = None if parsed.overwrite else present_summary(parsed.source, parsed.out, config)
    if summary is None:
        check_writable(parsed.out)
        with connect(address, dashboard=not parsed.no_dashboard) as cluster:
            if cluster.dashboard_url:
                say(cluster.dashboard_line)
            with Stages("records") as stages:
                summary = prepare(
                    parsed.source,
                    parsed.out,
                    config,
                    overwrite=parsed.overwrite,
                    on_progress=partial(stages.advance, "prepare"),
                )
    for line in _summary_lines(summary):
        say(line)
    if parsed.json:
        say_json(asdict(summary))


def _inspect(parsed: argparse.Namespace) -> None:
    config = apply_knobs(PrepareConfig(), parsed)

    from mlim_ray.data.contact import check_readable
    from mlim_ray.data.inspection import inspect
    from mlim_ray.data.sources import resolve_prepare_config
    from mlim_ray.reporting.progress import say, say_json

    check_readable(parsed.source, config.image_folder, config.tokenizer)
    inspection = inspect(parsed.source, resolve_prepare_config(config, _TINY_IMAGE_SIZE))
    for line in inspection.lines():
        say(line)
    if parsed.json:
        say_json(asdict(inspection))


def _summary_lines(summary: "PrepareSummary") -> list[str]:
    lines = [f"{summary.out}: already prepared" if summary.already_prepared else f"prepared: {summary.out}"]
    lines.append(
        f"read {summary.read:,} = accepted {summary.accepted:,} + rejected {summary.rejected:,} "
        f"+ duplicates {summary.duplicates:,}; texts cut {summary.cut_texts:,}"
    )
    if summary.reasons:
        counts = sorted(summary.reasons.items(), key=lambda item: (-item[1], item[0]))
        lines.append("reasons: " + ", ".join(f"{reason} {count:,}" for reason, count in counts))
        lines.append(f"rejected records and duplicates: {summary.out.rstrip('/')}/quarantine")
    lines.append("splits: " + ", ".join(f"{split} {count:,}" for split, count in summary.splits.items()))
    lines.append(f"next: python experiments/pretrain.py --data {summary.out}")
    return lines


if __name__ == "__main__":
    main()
