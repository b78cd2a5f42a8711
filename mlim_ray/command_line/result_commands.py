"""What `mlim-ray embed` and `mlim-ray fill` share: flags, a Ray with progress, and the account at the end."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mlim_ray.command_line.errors import PlainParser
from mlim_ray.command_line.experiment import add_address_flags, address_of
from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.knobs import add_knobs
from mlim_ray.config.base import Section
from mlim_ray.config.prepare import SOURCES, PrepareConfig

if TYPE_CHECKING:
    from mlim_ray.data.result_set import ResultManifest
    from mlim_ray.pipelines.cluster import Cluster
    from mlim_ray.pipelines.model_pass import OnProgress
    from mlim_ray.pipelines.result_job import Job


class ResultConfig(Section):
    """Knobs of a command that shows records to a model."""

    prepare: PrepareConfig = Field(default_factory=PrepareConfig)


def add_result_command(commands: Any, name: str, about: str, config: type[ResultConfig]) -> PlainParser:
    """Add a command `NAME RUN SOURCE OUT`, with a flag for every knob of `config`."""
    parser: PlainParser = commands.add_parser(
        name,
        usage="%(prog)s RUN SOURCE OUT [--flag VALUE ...]",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Records are cleaned as those that RUN learned from, unless "
        "--prepare flags say otherwise; picture size, text length and vocabulary are always the model's.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("model_run", metavar="RUN", help="folder of a run, or of its model, local or s3://")
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument("out", metavar="OUT", help="folder for the results, local or s3://")
    parser.add_argument("--overwrite", action="store_true", help="replace other results that lie in OUT")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    add_address_flags(parser)
    add_knobs(parser, config)
    return parser


def check_paths(parsed: argparse.Namespace) -> None:
    """Raise ValueError for a path that is empty or lies in S3 where nothing can be listed."""
    from mlim_ray.data.contact import check_readable

    for name, path in (("RUN", parsed.model_run), ("SOURCE", parsed.source), ("OUT", parsed.out)):
        if not path.strip():
            raise ValueError(f"{name}: given nothing, expected a path; name the {name}")
    check_readable(parsed.model_run, parsed.source, parsed.out)


def manifest_of(
    parsed: argparse.Namespace, job: "Job", work: "Callable[[Cluster, OnProgress], ResultManifest]"
) -> "tuple[ResultManifest, bool]":
    """What lies in OUT already, or what `work` makes with a Ray and a line of progress; and whether it was there."""
    from mlim_ray.data.contact import check_writable
    from mlim_ray.data.lease import refuse_if_owned

    address = address_of(parsed)
    refuse_if_owned(job.folder.path)
    job.folder.refuse_foreign()
    present = None if parsed.overwrite else job.folder.present(job.plan)
    if present is not None:
        return present, True
    check_writable(parsed.out)

    from mlim_ray.pipelines.cluster import connect
    from mlim_ray.pipelines.result_job import check_places
    from mlim_ray.reporting.progress import Stages, say

    with connect(address, dashboard=not parsed.no_dashboard) as cluster:
        check_places(parsed.source, parsed.out, cluster)
        if cluster.dashboard_url:
            say(cluster.dashboard_line)
        try:
            with Stages("records") as stages:
                return work(cluster, stages.advance), False
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on from here") from None


def account_lines(manifest: "ResultManifest", out: str, *, already: bool, done: str) -> list[str]:
    """What a person is told of every command: what there is, and what became of every record."""
    counts = manifest.counts
    lines = [f"{out}: already {done}" if already else f"{done}: {out}"]
    lines.append(
        f"read {counts.read:,} = accepted {counts.accepted:,} + rejected {counts.rejected:,} + duplicates "
        f"{counts.duplicates:,}"
    )
    if counts.reasons:
        lines.append("reasons: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.reasons.items()))
        lines.append(f"rejected records and duplicates: {out.rstrip('/')}/quarantine")
    return lines


def summary_json(manifest: "ResultManifest", out: str, *, already: bool) -> dict[str, Any]:
    """The summary for a program."""
    return {
        "out": out,
        "already_there": already,
        **manifest.counts.model_dump(),
        "parts": len(manifest.parts),
        **manifest.facts,
    }
