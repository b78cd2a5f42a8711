"""`mlim-ray doctor [FILE]`: what is wrong with a cluster's file, a running cluster or this machine, and the mend."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlim_ray.command_line.knob_help import WholeWordHelp

if TYPE_CHECKING:
    from mlim_ray.pipelines.doctor.arithmetic import Experiment
    from mlim_ray.pipelines.doctor.finding import Diagnosis

SICK = 1
"""exit code where there is an error; warnings alone leave it at 0"""


def add_doctor_command(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "doctor",
        usage="%(prog)s [FILE] [--flag VALUE ...]",
        help="say what is wrong with a cluster's file, a running cluster or this machine",
        description="Before money is spent: look at FILE as `ray up` would read it, and ask AWS and the storage. "
        "Without FILE: look at this machine, or at the running cluster at --address. One line a finding, with "
        "its mend. Exit code 0 without errors, 1 with errors, 2 where there is nothing to look at.",
        formatter_class=WholeWordHelp,
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a cluster's file, such as cluster/gpu.yaml")
    parser.add_argument("--address", metavar="A", help="address of a running cluster (default: RAY_ADDRESS if set)")
    parser.add_argument(
        "--storage",
        metavar="S3",
        help="place in S3 where a small object is written and removed (default: metadata.fill_in.storage of FILE)",
    )
    parser.add_argument("--offline", action="store_true", help="ask neither AWS nor the storage, read FILE only")
    parser.add_argument("--workers", metavar="N", type=int, help="see whether a pre-training run of N workers fits")
    parser.add_argument(
        "--workers-per-trial", metavar="N", type=int, default=1, help="of the search that has to fit (default: 1)"
    )
    parser.add_argument(
        "--gpus-per-trial", metavar="X", type=float, default=1.0, help="of the search that has to fit (default: 1)"
    )
    parser.add_argument("--stream", action="store_true", help="reckon with records that are streamed")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, the last line of the output")
    parser.set_defaults(run=run_doctor)


def run_doctor(parsed: argparse.Namespace) -> None:
    """Look and tell; leaves with exit code 1 where there is an error. Raises ValueError where nothing can be seen."""
    from mlim_ray.reporting.progress import say, say_json

    address = parsed.address if parsed.address is not None else os.environ.get("RAY_ADDRESS")
    _check_flags(parsed, address)
    diagnosis, looked_at = _diagnose(parsed, address)
    for finding in sorted(diagnosis.findings, key=lambda finding: finding.severity):
        say(finding.line)
    for fact in diagnosis.facts:
        say(fact)
    say(f"{looked_at}: {_verdict(diagnosis)}")
    if parsed.json:
        say_json(asdict(diagnosis) | {"errors": diagnosis.num_errors, "warnings": diagnosis.num_warnings})
    if diagnosis.num_errors:
        raise SystemExit(SICK)


def _check_flags(parsed: argparse.Namespace, address: str | None) -> None:
    for flag, count in (("--workers", parsed.workers), ("--workers-per-trial", parsed.workers_per_trial)):
        if count is not None and count < 1:
            raise ValueError(f"{flag}: given {count}, expected a number of at least 1")
    if not 0.0 < parsed.gpus_per_trial <= 1.0:
        given = f"{parsed.gpus_per_trial:g}"
        raise ValueError(f"--gpus-per-trial: given {given}, expected a number above 0, at most 1")
    if parsed.address == "auto" or (parsed.address is not None and not address):
        raise ValueError(f"--address: given {parsed.address!r}, expected an address such as 10.0.0.5:6379")
    if parsed.offline and parsed.storage:
        raise ValueError("--offline and --storage are both given, expected at most one; leave one out")
    if parsed.offline and parsed.file is None:
        raise ValueError("--offline: given without FILE, expected a cluster's file to read; name one")
    if parsed.file is not None and parsed.address is not None:
        raise ValueError("FILE and --address are both given, expected at most one; ask twice")


def _diagnose(parsed: argparse.Namespace, address: str | None) -> "tuple[Diagnosis, str]":
    from mlim_ray.pipelines.doctor.examine import examine_file, examine_machine
    from mlim_ray.pipelines.doctor.running import check_running

    project = Path.cwd()
    if parsed.file is not None:
        options = {"place": parsed.storage, "offline": parsed.offline}
        return examine_file(Path(parsed.file), project, _experiment(parsed), **options), parsed.file
    if address and address != "local":
        return check_running(address, parsed.storage, _experiment(parsed)), f"the cluster at {address}"
    return examine_machine(project, _experiment(parsed), place=parsed.storage), "this machine"


def _experiment(parsed: argparse.Namespace) -> "Experiment":
    from mlim_ray.pipelines.doctor.arithmetic import Experiment

    return Experiment(parsed.workers, parsed.workers_per_trial, parsed.gpus_per_trial, parsed.stream)


def _verdict(diagnosis: "Diagnosis") -> str:
    if not diagnosis.findings:
        return "nothing wrong was found"
    counts = ((diagnosis.num_errors, "error"), (diagnosis.num_warnings, "warning"))
    return ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for number, word in counts if number)
