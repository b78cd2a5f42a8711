"""The first step at which two runs differ, and in what: config, start, data, masks or loss.

What tells the time is left out, and so is what changes nothing that is learned. Lines are compared at the steps that
both runs logged; digests of lines between two such steps add up, means do not and are compared where both lines cover
the same steps.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from mlim_ray.training.metrics import KEYS, MASKS, OF_THE_MACHINE, Line
from mlim_ray.training.run_facts import RunFacts, read_run

Part = Literal["config", "start", "data", "masks", "loss"]

PARTS: tuple[Part, ...] = ("config", "start", "data", "masks", "loss")
"""in the order in which one brings about the next"""
_EXACT = ("samples", "epoch")
_OF_ONE_STEP = (*_EXACT, "learning_rate", "gradient_norm", "num_skipped_steps", "num_left_out")
_UNDECISIVE = (
    *("prepare.image_folder", "prepare.tokenizer", "feed.kind", "probe."),
    *("train.log_every_steps", "train.checkpoint_every_steps", "train.num_checkpoints_kept", "train.keep_"),
    *("train.report_every_s", "train.collective_timeout_s", "train.stop_within_s", "train.resize_every_s"),
    *("train.peak_flops", "feed.cache_", "model.licence"),
)
"""knobs, and sections, that change nothing of what is learned; the paths of `prepare` show in the prepared set"""


class KnobDifference(NamedTuple):
    """A knob that differs; None where a run has no such knob."""

    knob: str
    a: Any
    b: Any
    decides: bool
    """whether it can change what is learned"""


class EntryDifference(NamedTuple):
    """An entry of a line that differs; None where a run has no such entry."""

    step: int
    part: Part
    entry: str
    a: Any
    b: Any
    relative: float | None
    """difference over the larger magnitude; None where one is no number"""


@dataclass(frozen=True)
class RunDiff:
    """How two runs differ."""

    a: RunFacts
    b: RunFacts
    knobs: tuple[KnobDifference, ...]
    same_set: bool | None
    """whether both learn from the same prepared set; None where one has not come so far"""
    steps: tuple[int, ...]
    """steps that both logged"""
    num_means: int
    """of those, the steps whose means both runs took over the same steps"""
    has_digests: bool
    """whether keys and masks could be compared"""
    entries: tuple[EntryDifference, ...]
    """for each part that differs, all its entries at the first step where it does"""
    largest: EntryDifference | None
    """the largest relative difference of any loss, within the tolerance or not"""

    @property
    def first_steps(self) -> dict[Part, int]:
        """By part, the first step at which it differs; 0 is before the first one."""
        found: dict[Part, int] = {entry.part: entry.step for entry in self.entries}
        if self.same_set is False:
            found["data"] = 0
        starts = (self.a.start_sha256, self.b.start_sha256)
        if None not in starts and starts[0] != starts[1]:
            found["start"] = 0
        if any(knob.decides for knob in self.knobs):
            found["config"] = 0
        return {part: found[part] for part in PARTS if part in found}

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        first_steps = self.first_steps
        return {
            "equal": not first_steps,
            "first_step": min(first_steps.values(), default=None),
            "first_steps": first_steps,
            "a": {"run": self.a.path, "last_step": self.a.last_step},
            "b": {"run": self.b.path, "last_step": self.b.last_step},
            "knobs": [knob._asdict() for knob in self.knobs],
            "same_set": self.same_set,
            "num_steps_compared": len(self.steps),
            "num_steps_with_means": self.num_means,
            "has_digests": self.has_digests,
            "entries": [entry._asdict() for entry in self.entries],
            "largest": None if self.largest is None else self.largest._asdict(),
        }


def diff_runs(path_a: str, path_b: str, tolerance: float = 0.0) -> RunDiff:
    """Compare two run folders, local or on S3, finished or not.

    Args:
        path_a: a run folder.
        path_b: another one.
        tolerance: relative difference up to which two losses are equal.

    Raises:
        ValueError: a folder holds no run, or the runs agree so far and logged no step that could tell them apart.
    """
    return compare(read_run(path_a), read_run(path_b), tolerance)


def compare(a: RunFacts, b: RunFacts, tolerance: float = 0.0) -> RunDiff:
    """`diff_runs` of runs that are read already."""
    shas = (a.manifest_sha256, b.manifest_sha256)
    by_part: dict[Part, list[EntryDifference]] = {}
    steps, num_means, has_digests = [], 0, True
    largest: EntryDifference | None = None
    for window in _windows(a.lines, b.lines):
        steps.append(window.step)
        num_means += window.has_means
        has_digests &= window.has_digests
        found = list(window.differences())
        losses = [entry for entry in found if entry.relative is not None and entry.entry not in _EXACT]
        largest = max([*losses, *([] if largest is None else [largest])], key=_relative, default=None)
        for part in PARTS:
            entries = [entry for entry in found if entry.part == part and _exceeds(entry, tolerance)]
            if entries:
                by_part.setdefault(part, entries)
    diff = RunDiff(
        a,
        b,
        tuple(_knob_differences(a.config, b.config)),
        None if None in shas else shas[0] == shas[1],
        tuple(steps),
        num_means,
        has_digests and bool(steps),
        tuple(entry for part in PARTS for entry in by_part.get(part, ())),
        largest,
    )
    if not steps and not diff.first_steps:
        raise ValueError(
            f"{a.path} (lines up to step {a.last_step}) and {b.path} (up to step {b.last_step}) have no logged step in "
            "common; compare them once both have come further, or runs whose --train.log-every-steps have a multiple "
            "in common"
        )
    return diff


class _Window(NamedTuple):
    """The lines of both runs after one common step up to the next."""

    a: list[Line]
    b: list[Line]

    @property
    def step(self) -> int:
        return int(self.a[-1]["step"])

    @property
    def has_means(self) -> bool:
        return len(self.a) == len(self.b) == 1

    @property
    def has_digests(self) -> bool:
        return all(KEYS in line and MASKS in line for line in (*self.a, *self.b))

    def differences(self) -> Iterator[EntryDifference]:
        """All entries that are not the same to the last bit."""
        if self.has_digests:
            # Other keys have other masks.
            pairs: tuple[tuple[Part, str], ...] = (("data", KEYS), ("masks", MASKS))
            for part, entry in pairs:
                sums = _summed(self.a, entry), _summed(self.b, entry)
                if sums[0] != sums[1]:
                    yield EntryDifference(self.step, part, entry, *sums, None)
                    break
        a, b = self.a[-1], self.b[-1]
        for entry in dict.fromkeys([*a, *b]):
            if entry in ("step", KEYS, MASKS) or entry.startswith(OF_THE_MACHINE):
                continue
            if not (self.has_means or entry in _OF_ONE_STEP):
                continue
            values = a.get(entry), b.get(entry)
            relative = _relative_difference(*values)
            if relative != 0.0:
                yield EntryDifference(self.step, "data" if entry in _EXACT else "loss", entry, *values, relative)


def _windows(lines_a: Sequence[Line], lines_b: Sequence[Line]) -> Iterator[_Window]:
    common = {line["step"] for line in lines_a} & {line["step"] for line in lines_b}
    for a, b in zip(_cut(lines_a, common), _cut(lines_b, common), strict=True):
        yield _Window(a, b)


def _cut(lines: Sequence[Line], steps: set[int]) -> Iterator[list[Line]]:
    """Runs of lines, each up to one of `steps`; lines past the last of them are left out."""
    window: list[Line] = []
    for line in lines:
        window.append(line)
        if line["step"] in steps:
            yield window
            window = []


def _summed(lines: list[Line], entry: str) -> str:
    return f"{sum(int(line[entry], 16) for line in lines) % 2**64:016x}"


def _relative_difference(a: Any, b: Any) -> float | None:
    """0 for equal values, None where a value that differs is no number."""
    if a == b:
        return 0.0
    if not (isinstance(a, int | float) and isinstance(b, int | float)):
        return None
    if math.isnan(a) and math.isnan(b):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def _relative(entry: EntryDifference) -> float:
    return entry.relative if entry.relative is not None else math.inf


def _exceeds(entry: EntryDifference, tolerance: float) -> bool:
    return entry.part != "loss" or _relative(entry) > tolerance


def decides(knob: str) -> bool:
    """Whether a knob can change what is learned."""
    return not knob.startswith(_UNDECISIVE)


def _knob_differences(a: dict[str, Any], b: dict[str, Any]) -> Iterator[KnobDifference]:
    for knob in dict.fromkeys([*a, *b]):
        if a.get(knob) != b.get(knob):
            yield KnobDifference(knob, a.get(knob), b.get(knob), decides(knob))
