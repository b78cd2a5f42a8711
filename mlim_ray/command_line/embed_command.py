"""`mlim-ray embed RUN SOURCE OUT`: embeddings of all records of a source, as Parquet."""

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
from mlim_ray.config.embed import EmbedConfig


class EmbedCommandConfig(ResultConfig):
    """Knobs of `embed`."""

    embed: EmbedConfig = Field(default_factory=EmbedConfig)


def add_embed_command(commands: Any) -> None:
    """Add the command to the program's."""
    about = "write embeddings of the picture, the text and both of every record of SOURCE as Parquet files in OUT"
    parser = add_result_command(commands, "embed", about, EmbedCommandConfig)
    parser.set_defaults(run=_embed)


def _embed(parsed: argparse.Namespace) -> None:
    apply_knobs(EmbedCommandConfig(), parsed)
    check_paths(parsed)

    from mlim_ray.pipelines.embed import embed, embed_job
    from mlim_ray.reporting.progress import say, say_json
    from mlim_ray.training.loaded_run import load_run

    run = load_run(parsed.model_run)
    config = apply_knobs(EmbedCommandConfig(prepare=run.prepare), parsed)
    job = embed_job(run, parsed.source, parsed.out, config.prepare, config.embed)
    manifest, already = manifest_of(parsed, job, partial(embed, job, config=config.embed))
    for line in account_lines(manifest, parsed.out, already=already, done="embedded"):
        say(line)
    files = "file" if len(manifest.parts) == 1 else "files"
    form = f"{manifest.facts['width']} x {manifest.facts['dtype']}"
    say(f"columns key, image, text, joint ({form} each) in {len(manifest.parts):,} {files} under {parsed.out}/parts")
    if parsed.json:
        say_json(summary_json(manifest, parsed.out, already=already))
