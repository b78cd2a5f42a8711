"""`mlim-ray prepare`, `inspect`, `requeue` and `verify` for sets of records; `evaluate`, `compare`, `embed`, `fill`,
`diff` and `replay` for runs; `export-onnx` and `demo` for models; `recipes` for what there is to train; `doctor` for
clusters.

What does the work is imported once the command line is known to be right, so that `--help` and errors come
at once.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from mlim_ray.command_line.compare_command import add_compare_command
from mlim_ray.command_line.demo_command import add_demo_command
from mlim_ray.command_line.diff_command import add_diff_arguments, run_diff
from mlim_ray.command_line.doctor_command import add_doctor_command
from mlim_ray.command_line.embed_command import add_embed_command
from mlim_ray.command_line.errors import PlainParser, plain_errors
from mlim_ray.command_line.evaluate_command import add_evaluate_command
from mlim_ray.command_line.experiment import add_address_flags, address_of
from mlim_ray.command_line.fill_command import add_fill_command
from mlim_ray.command_line.inspect_command import add_inspect_flags, run_inspect
from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.knobs import add_knobs, apply_knobs
from mlim_ray.command_line.onnx_command import add_onnx_command
from mlim_ray.command_line.recipes_command import add_recipes_command
from mlim_ray.command_line.replay_command import add_replay_command
from mlim_ray.command_line.watch_spot_command import add_watch_spot_command
from mlim_ray.config.prepare import SOURCES, PrepareConfig

if TYPE_CHECKING:
    from mlim_ray.data.summary import PrepareSummary

_TINY_IMAGE_SIZE = 32
"""Picture side of the model that a machine without a GPU trains: what `auto` means without a model."""


@plain_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """The program `mlim-ray`: exit code 0, 1 where runs differ or the doctor found an error, 2 for a user's mistake, 3
    for too many rejected records."""
    parsed = _parser().parse_args(argv)
    parsed.run(parsed)


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="mlim-ray",
        usage="mlim-ray "
        "{prepare,inspect,requeue,verify,evaluate,compare,embed,fill,export-onnx,demo,recipes,diff,replay,doctor,"
        "watch-spot} ...",
        description="From raw image-text records to a set that MLIM can be trained on; what a run's model is worth and "
        "what it makes of records; what sets two runs apart.",
        formatter_class=WholeWordHelp,
        epilog="Training and search are the files in experiments/; each has --help.",
    )
    commands = parser.add_subparsers(prog="mlim-ray", dest="command", metavar="COMMAND", required=True)
    prepare = _command(commands, "prepare", "SOURCE OUT", "read, clean and tokenise SOURCE into a prepared set in OUT")
    prepare.add_argument("out", metavar="OUT", help="folder of the prepared set, local or s3://")
    prepare.add_argument("--overwrite", action="store_true", help="replace another set that lies in OUT")
    prepare.add_argument(
        "--append", action="store_true", help="add the files of SOURCE that the set in OUT was not made from yet"
    )
    prepare.add_argument(
        "--keep-rejected", action="store_true", help="keep the original bytes of rejected records in the quarantine"
    )
    add_address_flags(prepare)
    prepare.set_defaults(run=_prepare)
    requeue = commands.add_parser(
        "requeue",
        usage="%(prog)s SET [REPAIRED] [--flag VALUE ...]",
        help="prepare repaired records of SET's quarantine into SET",
        description="Clean rejected records of SET again and add those that are accepted now. REPAIRED is a Parquet "
        "file or folder with repaired rows of SET/quarantine, or any source whose records have the rejected ones' "
        "keys. Without it the originals that --keep-rejected kept are judged by the flags given here.",
        formatter_class=WholeWordHelp,
    )
    requeue.add_argument("set", metavar="SET", help="folder of a prepared set, local or s3://")
    requeue.add_argument("repaired", metavar="REPAIRED", nargs="?", help="the repaired records")
    requeue.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    add_address_flags(requeue)
    add_knobs(requeue, PrepareConfig)
    requeue.set_defaults(run=_requeue)
    verify = commands.add_parser(
        "verify",
        usage="%(prog)s SET",
        help="read every file of SET and compare its sha256 with the manifest's",
        description="Read every file of SET and compare its sha256 with the manifest's; exit code 2 if any differs.",
        formatter_class=WholeWordHelp,
    )
    verify.add_argument("set", metavar="SET", help="folder of a prepared set, local or s3://")
    verify.set_defaults(run=_verify)
    inspect = _command(commands, "inspect", "SOURCE", "show what SOURCE holds and which columns would be used")
    add_inspect_flags(inspect)
    inspect.set_defaults(run=partial(run_inspect, auto_image_size=_TINY_IMAGE_SIZE))
    add_evaluate_command(commands)
    add_compare_command(commands)
    add_embed_command(commands)
    add_fill_command(commands)
    add_onnx_command(commands)
    add_demo_command(commands)
    add_recipes_command(commands)
    add_replay_command(commands)
    diff = commands.add_parser(
        "diff",
        usage="%(prog)s RUN_A RUN_B [--tolerance X] [--json]",
        help="tell the first step at which two runs differ, and in what",
        description="Tell the first step at which two runs differ, and in what: config, start, data, masks or loss. "
        "Exit code 0 for no difference, 1 for a difference, 2 for runs that cannot be compared.",
        formatter_class=WholeWordHelp,
    )
    add_diff_arguments(diff)
    diff.set_defaults(run=run_diff)
    add_doctor_command(commands)
    add_watch_spot_command(commands)
    return parser


def _command(commands: Any, name: str, arguments: str, about: str) -> PlainParser:
    parser: PlainParser = commands.add_parser(
        name,
        usage=f"%(prog)s {arguments} [--flag VALUE ...]",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    add_knobs(parser, PrepareConfig)
    return parser


def _prepare(parsed: argparse.Namespace) -> None:
    if parsed.append and (parsed.overwrite or parsed.keep_rejected):
        other = "--overwrite" if parsed.overwrite else "--keep-rejected, which is the set's own"
        raise ValueError(f"--append: given with {other}; expected one of them: leave one out")
    for name in ("source", "out"):
        if not getattr(parsed, name).strip():
            raise ValueError(f"{name.upper()}: given nothing, expected a path; name the {name} of the records")

    from mlim_ray.data.contact import check_readable, check_writable
    from mlim_ray.data.manifest import read_manifest
    from mlim_ray.data.sources import open_source, resolve_prepare_config
    from mlim_ray.data.summary import nothing_new, present_summary

    check_readable(parsed.source, parsed.out)
    base = read_manifest(parsed.out).config if parsed.append else PrepareConfig()
    config = resolve_prepare_config(apply_knobs(base, parsed), _TINY_IMAGE_SIZE)
    address = address_of(parsed)
    check_readable(config.image_folder, config.tokenizer)
    # A source that cannot be is refused, and a set that is there already told, before Ray starts.
    present = None
    if parsed.overwrite:
        open_source(parsed.source, config)
    elif parsed.append:
        present = nothing_new(parsed.source, parsed.out, config)
    else:
        present = present_summary(parsed.source, parsed.out, config, keep_rejected=parsed.keep_rejected)
    if present is not None:
        _tell(present, parsed)
        return

    check_writable(parsed.out)

    from mlim_ray.pipelines.prepare import append, prepare

    if parsed.append:
        run = partial(append, parsed.source, parsed.out, config)
    else:
        flags = {"overwrite": parsed.overwrite, "keep_rejected": parsed.keep_rejected}
        run = partial(prepare, parsed.source, parsed.out, config, **flags)
    _tell(_on_ray(run, address, parsed), parsed)


def _requeue(parsed: argparse.Namespace) -> None:
    from mlim_ray.data.contact import check_readable, check_writable
    from mlim_ray.data.manifest import read_manifest

    check_readable(parsed.set, parsed.repaired)
    config = apply_knobs(read_manifest(parsed.set).config, parsed)
    check_writable(parsed.set)

    from mlim_ray.pipelines.prepare import requeue

    run = partial(requeue, parsed.set, parsed.repaired, config)
    _tell(_on_ray(run, address_of(parsed), parsed), parsed)


def _verify(parsed: argparse.Namespace) -> None:
    from mlim_ray.data.contact import check_readable
    from mlim_ray.data.prepared import PreparedSet
    from mlim_ray.reporting.progress import Stages, say

    check_readable(parsed.set)
    prepared = PreparedSet.open(parsed.set)
    with Stages("files") as stages:
        prepared.verify(partial(stages.advance, "verify"))
    files, counts = prepared.manifest.files(), prepared.manifest.counts
    say(f"{parsed.set}: {len(files):,} files, {sum(file.num_bytes for file in files):,} bytes as the manifest says")
    say(_accounts(counts.read, counts.accepted, counts.rejected, counts.duplicates, counts.cut_texts))


def _on_ray(run: "Callable[..., PrepareSummary]", address: str, parsed: argparse.Namespace) -> "PrepareSummary":
    """The summary of `run`, which gets a Ray and a line of progress."""
    from mlim_ray.pipelines.cluster import connect
    from mlim_ray.reporting.progress import Stages, say

    with connect(address, dashboard=not parsed.no_dashboard) as cluster:
        if cluster.dashboard_url:
            say(cluster.dashboard_line)
        try:
            with Stages("records") as stages:
                return run(on_progress=partial(stages.advance, "prepare"))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on from here") from None


def _tell(summary: "PrepareSummary", parsed: argparse.Namespace) -> None:
    from mlim_ray.reporting.progress import say, say_json

    for line in _summary_lines(summary):
        say(line)
    if parsed.json:
        say_json(asdict(summary))


def _summary_lines(summary: "PrepareSummary") -> list[str]:
    lines = [f"{summary.out}: already prepared" if summary.already_prepared else f"prepared: {summary.out}"]
    if summary.continued:
        lines.append("continued where an earlier start had been stopped")
    if summary.generations > 1:
        lines.append(f"generation {summary.generations}: {summary.newly_accepted:,} records added")
    lines.append(_accounts(summary.read, summary.accepted, summary.rejected, summary.duplicates, summary.cut_texts))
    if summary.reasons:
        counts = sorted(summary.reasons.items(), key=lambda item: (-item[1], item[0]))
        lines.append("reasons: " + ", ".join(f"{reason} {count:,}" for reason, count in counts))
        lines.append(f"rejected records and duplicates: {summary.out.rstrip('/')}/quarantine")
    lines.append("splits: " + ", ".join(f"{split} {count:,}" for split, count in summary.splits.items()))
    lines.append(f"next: python experiments/pretrain.py --data {summary.out}")
    return lines


def _accounts(read: int, accepted: int, rejected: int, duplicates: int, cut: int) -> str:
    return (
        f"read {read:,} = accepted {accepted:,} + rejected {rejected:,} + duplicates {duplicates:,}; texts cut {cut:,}"
    )


if __name__ == "__main__":
    main()
