"""`mlim-ray diff RUN_A RUN_B`: the first step at which two runs differ, and in what, as lines and as JSON."""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlim_ray.config.wording import shown

if TYPE_CHECKING:
    from mlim_ray.training.run_diff import RunDiff
    from mlim_ray.training.run_facts import RunFacts

DIFFERENT = 1
"""exit code for runs that differ, as that of the program diff"""
_LONGEST_KNOB = 24
"""characters of a value, so that both fit beside the knob's name; --json has all of them"""


def add_diff_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("run_a", metavar="RUN_A", help="a run folder, local or s3://, finished or not")
    parser.add_argument("run_b", metavar="RUN_B", help="another one")
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=_tolerance,
        default=0.0,
        help="relative difference up to which losses count as equal (default: 0, every bit)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, the last line of the output")


def run_diff(parsed: argparse.Namespace) -> None:
    """Compare and tell; leaves with exit code 1 where the runs differ. Raises ValueError where there is no run."""
    from mlim_ray.data.contact import check_readable
    from mlim_ray.reporting.progress import say, say_json, table
    from mlim_ray.training.run_diff import diff_runs

    check_readable(parsed.run_a, parsed.run_b)
    found = diff_runs(parsed.run_a, parsed.run_b, parsed.tolerance)
    for part in _told(found, parsed.tolerance):
        if isinstance(part, str):
            say(part)
        else:
            table(part)
    if parsed.json:
        say_json(found.as_json())
    if found.first_steps:
        raise SystemExit(DIFFERENT)


def _told(found: "RunDiff", tolerance: float) -> Iterator[str | Sequence[dict[str, Any]]]:
    yield f"A: {_run(found.a)}"
    yield f"B: {_run(found.b)}"
    for decides, what in ((True, "config"), (False, "config, of no consequence for what is learned")):
        knobs = [knob for knob in found.knobs if knob.decides == decides]
        if knobs:
            yield f"{what}: {_count(len(knobs), 'knob differs', 'knobs differ')}"
            yield [{"knob": knob.knob, "A": _ending(knob.a), "B": _ending(knob.b)} for knob in knobs]
        elif decides:
            yield "config: no difference that matters"
    if "start" in found.first_steps:
        yield "start: the weights that the runs started from are not the same"
    yield f"data: {_data(found)}"
    yield f"steps: {_steps(found)}"
    if found.entries:
        yield [
            {
                "step": entry.step,
                "entry": entry.entry,
                "A": _value(entry.a),
                "B": _value(entry.b),
                "relative": "-" if entry.relative is None else f"{entry.relative:.1e}",
            }
            for entry in sorted(found.entries, key=lambda entry: entry.step)
        ]
    yield _verdict(found, tolerance)


def _run(run: "RunFacts") -> str:
    num_steps = run.config.get("train.num_steps")
    of = f" of {num_steps:,}" if isinstance(num_steps, int) and num_steps != run.last_step else ""
    return f"{run.path}, logged up to step {run.last_step:,}{of}"


def _data(found: "RunDiff") -> str:
    if found.same_set is None:
        return "not compared, for a run does not say yet which prepared set it learns from"
    if found.same_set:
        return f"the same prepared set (manifest {str(found.a.manifest_sha256)[:12]})"
    a, b = (str(run.manifest_sha256)[:12] for run in (found.a, found.b))
    return f"another prepared set, or another state of it (manifest {a} and {b})"


def _steps(found: "RunDiff") -> str:
    if not found.steps:
        return "none logged by both"
    told = f"{len(found.steps):,} logged by both, {_range(found.steps)}"
    if found.num_means < len(found.steps):
        told += f"; means of the losses compared at {found.num_means:,} of them, where both are over the same steps"
    if not found.has_digests:
        told += "; keys and masks not compared, for a run has lines without their digests"
    return told


def _verdict(found: "RunDiff", tolerance: float) -> str:
    first_steps = found.first_steps
    if first_steps:
        first = min(first_steps.values())
        parts = [part for part, step in first_steps.items() if step == first]
        later = [f"{part} at step {step:,}" for part, step in first_steps.items() if step != first]
        where = "before the first step" if first == 0 else f"at step {first:,}"
        return f"They differ first {where}, in: {', '.join(parts)}{'; then ' + ', '.join(later) if later else ''}."
    if found.largest is None:
        return f"No difference in {_count(len(found.steps), 'logged step', 'logged steps')}."
    largest = found.largest
    return (
        f"No difference beyond the tolerance of {tolerance:g}; the largest is {largest.relative:.1e}, "
        f"{largest.entry} at step {largest.step:,}."
    )


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _range(steps: Sequence[int]) -> str:
    return f"step {steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"


def _value(value: Any) -> str:
    """A figure to its last bit."""
    return "-" if value is None else str(value)


def _ending(knob: Any) -> str:
    """A knob's value; of a long one, which is a path, the end."""
    is_long = isinstance(knob, str) and len(knob) > _LONGEST_KNOB
    return f"...{shown(knob[3 - _LONGEST_KNOB :])}" if is_long else shown(knob)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0.0 <= value < math.inf):
        raise argparse.ArgumentTypeError(f"given {shown(text)}, expected a number of at least 0, such as 1e-5")
    return value
