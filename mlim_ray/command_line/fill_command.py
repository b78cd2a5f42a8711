"""`mlim-ray fill RUN SOURCE OUT --attribute base_colour`: what records lack, told from their picture and text."""

import argparse
from functools import partial
from typing import Any

from pydantic import Field

from mlim_ray.command_line.knobs import apply_knobs
from mlim_ray.command_line.result_commands import (
    ResultConfig,
    account_lines,
    add_result_command,
    check_paths,
    manifest_of,
    summary_json,
)
from mlim_ray.config.fill import FillingConfig


class FillCommandConfig(ResultConfig):
    """Knobs of `fill`."""

    fill: FillingConfig = Field(default_factory=FillingConfig)


def add_fill_command(commands: Any) -> None:
    """Add the command to the program's."""
    about = "tell an attribute that records of SOURCE lack from their picture and text, as Parquet files in OUT"
    parser = add_result_command(commands, "fill", about, FillCommandConfig)
    parser.add_argument(
        "--attribute", metavar="COLUMN", required=True, help="column of SOURCE that is filled where it is null or empty"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also tell the attribute of records that have it; short for --fill.all-records true",
    )
    parser.set_defaults(run=_fill)


def _fill(parsed: argparse.Namespace) -> None:
    apply_knobs(FillCommandConfig(), parsed)
    check_paths(parsed)

    from mlim_ray.evaluation.filling_report import FillingReport
    from mlim_ray.pipelines.fill import fill, fill_job
    from mlim_ray.reporting.progress import say, say_json
    from mlim_ray.training.loaded_run import load_run

    run = load_run(parsed.model_run)
    config = apply_knobs(FillCommandConfig(prepare=run.prepare), parsed)
    if parsed.all:
        config = config.model_copy(update={"fill": config.fill.model_copy(update={"all_records": True})})
    job = fill_job(run, parsed.source, parsed.out, parsed.attribute, config.prepare, config.fill)
    manifest, already = manifest_of(parsed, job, partial(fill, job, config=config.fill))
    for line in account_lines(manifest, parsed.out, already=already, done="filled"):
        say(line)
    for line in FillingReport.from_facts(manifest.facts).lines():
        say(line)
    num_rows = sum(part.num_records for part in manifest.parts)
    say(f"{num_rows:,} records filled, under {parsed.out}/parts; figures in {parsed.out}/fill.json")
    if parsed.json:
        say_json(summary_json(manifest, parsed.out, already=already))
