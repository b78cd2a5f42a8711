"""`mlim-ray evaluate RUN --on SOURCE`: what the model of a run is worth, task by task, with intervals and baselines."""

import argparse
from typing import Any

from mlim_ray.command_line.errors import PlainParser
from mlim_ray.command_line.experiment import add_address_flags, address_of
from mlim_ray.command_line.knob_help import WholeWordHelp
from mlim_ray.command_line.knobs import add_knobs, add_shorthand, apply_knobs
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.prepare import SOURCES


def add_evaluate_command(commands: Any) -> None:
    """Add the command to the program's."""
    about = "tell what the model of RUN is worth on held-out records, beside what needs no pre-training"
    parser: PlainParser = commands.add_parser(
        "evaluate",
        usage="%(prog)s RUN [--on SOURCE] [--tasks NAME,...] [--flag VALUE ...]",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Results go into RUN: evaluation/results.json, evaluation.json and "
        "the run's page. Records that the model was pre-trained on are left out.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("model_run", metavar="RUN", help="folder of a run, a search or a model, local or s3://")
    parser.add_argument(
        "--on", metavar="SOURCE", help=f"{SOURCES}; prepared once into RUN/evaluation (default: RUN's own prepared set)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")
    add_shorthand(parser, EvaluateConfig, "--attribute-columns", "prepare.attribute_columns")
    add_shorthand(parser, EvaluateConfig, "--match", "pairs.match")
    add_address_flags(parser)
    add_knobs(parser, EvaluateConfig)
    parser.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> None:
    apply_knobs(EvaluateConfig(), parsed)
    for name, path in (("RUN", parsed.model_run), ("--on", parsed.on)):
        if path is not None and not path.strip():
            raise ValueError(f"{name}: given nothing, expected a path; name one")
    address = address_of(parsed)

    from mlim_ray.data.contact import check_readable, check_writable
    from mlim_ray.evaluation.tasks import chosen_tasks
    from mlim_ray.reporting.progress import say, say_json
    from mlim_ray.training.loaded_run import load_run

    check_readable(parsed.model_run, parsed.on)
    run = load_run(parsed.model_run)
    config = apply_knobs(EvaluateConfig(prepare=run.prepare), parsed)
    chosen_tasks(config.tasks)
    check_writable(parsed.model_run)

    from mlim_ray.pipelines.evaluate import EvaluateRequest, evaluate_run
    from mlim_ray.pipelines.evaluation_results import RESULTS

    request = EvaluateRequest(parsed.model_run, parsed.on, config, address, not parsed.no_dashboard)
    found = evaluate_run(request, run)
    folder = parsed.model_run.rstrip("/")
    say("")
    say(f"results: {folder}/{RESULTS}")
    if parsed.json:
        say_json({"out": folder, **found})
