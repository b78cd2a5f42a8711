"""A search as its page and its verdict see it; everything can be made from what JSON holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from mlim_ray.reporting.figures import LinearFigures, ProbeFigures, finite

Role = Literal["paper", "light_only", "both_heavy", "alternating", "searched"]
ROLE_NAMES: dict[Role, str] = {
    "paper": "paper's setting",
    "light_only": "light-only",
    "both_heavy": "both at 80 %",
    "alternating": "alternating",
    "searched": "searched",
}
Phase = Literal["searching", "confirming", "finished"]
AccuracyKey = Literal["picture_only", "with_title"]
"""The two figures of a linear probe."""
ERROR_OF: dict[AccuracyKey, str] = {"picture_only": "linear_picture", "with_title": "linear_with_title"}
"""Names of their errors among a trial's measures."""


@dataclass(frozen=True)
class Trial:
    """One trial of a search."""

    trial: int
    """its number"""
    role: Role
    state: str
    """COMPLETE, PRUNED, FAIL or RUNNING"""
    samples: int
    score: float | None
    """its last score; lower is better"""
    curve: Sequence[Sequence[float]]
    """(samples, score) at each rung"""
    params: Mapping[str, Any]
    """value of every searched knob that its policy has: numbers, words, yes or no"""
    evaluation: Mapping[str, Any] | None
    """EvaluationFigures, or None where the trial was not evaluated to the end"""
    reason: str | None = None
    """why it failed"""
    objectives: Sequence[float | None] | None = None
    """its last value of each objective, where a search has several"""
    measures: Mapping[str, float | None] = field(default_factory=dict)
    """what was measured at its last rung, lower is better: probe, mlm, recon, linear_picture, linear_with_title"""

    @property
    def name(self) -> str:
        """How the pages call it."""
        return f"trial {self.trial}" + ("" if self.role == "searched" else f" ({ROLE_NAMES[self.role]})")

    @property
    def is_ranked(self) -> bool:
        """Whether it ran to the end and has a score."""
        return self.state == "COMPLETE" and finite(self.score) is not None

    @property
    def probe(self) -> ProbeFigures | None:
        """Its partner probe."""
        return None if self.evaluation is None else self.evaluation.get("probe")

    @property
    def linear_probe(self) -> LinearFigures | None:
        """Its linear probe."""
        return None if self.evaluation is None else self.evaluation.get("linear_probe")

    def accuracy(self, key: AccuracyKey) -> float | None:
        """Of its linear probe, at the end or else at its last rung."""
        if self.linear_probe is not None:
            return finite(self.linear_probe.get(key))
        error = finite(self.measures.get(ERROR_OF[key]))
        return None if error is None else 1.0 - error


@dataclass(frozen=True)
class ConfirmedArm:
    """A setting that ran again with fresh seeds at the full budget."""

    trial: int
    """number of the trial whose setting it is"""
    role: Role
    scores: Sequence[float]
    """one a seed"""
    mean: float
    interval: Sequence[float]
    """95 % interval of the mean"""
    params: Mapping[str, Any]
    linear_picture: Sequence[float] | None = None
    """accuracy of the linear probe from the picture alone, one a seed"""
    linear_with_title: Sequence[float] | None = None

    def accuracies(self, key: AccuracyKey) -> Sequence[float] | None:
        """Of the linear probe, one a seed."""
        return self.linear_picture if key == "picture_only" else self.linear_with_title


@dataclass(frozen=True)
class ScoreDifference:
    """Score of one confirmed setting less that of another, paired by seed."""

    trial: int
    against: int
    mean: float
    """negative: `trial` is better"""
    interval: Sequence[float]
    """95 % interval of the mean"""
    is_found: bool

    def seen_from(self, trial: int) -> ScoreDifference:
        """The same difference with `trial` first."""
        if trial == self.trial:
            return self
        low, high = self.interval
        return ScoreDifference(trial, self.trial, -self.mean, (-high, -low), self.is_found)


@dataclass(frozen=True)
class Confirmation:
    """What fresh seeds said about the best settings and the references (contract C10)."""

    seeds: Sequence[int]
    arms: Sequence[ConfirmedArm]
    differences: Sequence[ScoreDifference]
    seed_noise: float | None
    """standard deviation of the score over seeds of the paper's setting"""
    winner: int | None
    """None where no difference was found"""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Confirmation:
        """From a mapping with the fields, as `evaluation.json` holds it.

        Raises:
            ValueError: no arm, or a winner or a difference names a trial that is no arm.
        """
        arms = [ConfirmedArm(**arm) for arm in found["arms"]]
        differences = [ScoreDifference(**difference) for difference in found["differences"]]
        numbers = [arm.trial for arm in arms]
        named = {number for one in differences for number in (one.trial, one.against)}
        if found["winner"] is not None:
            named.add(found["winner"])
        if not arms or not named <= set(numbers):
            raise ValueError(
                f"the confirmation names the trials {sorted(named)} and has the arms {numbers}; expected one for each"
            )
        return cls(found["seeds"], arms, differences, found["seed_noise"], found["winner"])

    @property
    def best(self) -> ConfirmedArm:
        """The winner, or else the lowest mean."""
        return min(self.arms, key=lambda arm: (arm.trial != self.winner, arm.mean))

    def arm(self, trial: int) -> ConfirmedArm | None:
        """The arm with the setting of a trial."""
        return next((arm for arm in self.arms if arm.trial == trial), None)

    def differences_of(self, trial: int) -> list[ScoreDifference]:
        """All that one trial is part of, with it first."""
        return [one.seen_from(trial) for one in self.differences if trial in (one.trial, one.against)]


@dataclass(frozen=True)
class Importance:
    """How much of the score's variance each knob explains."""

    evaluator: str
    measured_on: str
    """which score, of how many trials"""
    values: Mapping[str, float]
    """share by knob, in [0, 1]"""
    interactions: Sequence[Sequence[Any]] = ()
    """(knob, other knob, share)"""


@dataclass(frozen=True)
class Search:
    """A search as its page and its verdict see it, finished or under way."""

    trials: Sequence[Trial]
    rungs: Sequence[int] = ()
    """samples at which trials are compared"""
    objectives: Sequence[str] = ("probe",)
    """what ranks trials; of several, the score is the mean"""
    num_trials: int | None = None
    """how many there will be; None: as many as there are"""
    phase: Phase = "finished"
    confirmation: Confirmation | None = None
    importance: Importance | None = None
    log_knobs: Sequence[str] = ()
    """those that were drawn on a log scale"""

    @classmethod
    def of(
        cls,
        trials: Sequence[Mapping[str, Any]],
        *,
        confirmation: Mapping[str, Any] | None = None,
        importance: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Search:
        """From mappings with the fields of the classes, as JSON holds them.

        Raises:
            ValueError: a confirmed setting is that of no trial, or see `Confirmation.of`.
        """
        known = [Trial(**trial) for trial in trials]
        confirmed = None if confirmation is None else Confirmation.of(confirmation)
        if confirmed is not None:
            numbers = {trial.trial for trial in known}
            lost = [arm.trial for arm in confirmed.arms if arm.trial not in numbers]
            if lost:
                raise ValueError(f"confirmed are the settings of trials {lost}, expected some of {sorted(numbers)}")
        return cls(
            trials=known,
            confirmation=confirmed,
            importance=None if importance is None else Importance(**importance),
            **fields,
        )

    @property
    def is_running(self) -> bool:
        """Whether the page will be written anew."""
        return self.phase != "finished"

    @property
    def winner(self) -> Trial | None:
        """The confirmed winner; none without a confirmation, or where it found no difference."""
        return None if self.confirmation is None else self.trial(self.confirmation.winner)

    @cached_property
    def best(self) -> Trial | None:
        """The winner, or else the lowest mean of the confirmation, or else the lowest score."""
        if self.confirmation is not None:
            return self.trial(self.confirmation.best.trial)
        return next(iter(self.ranked()), None)

    @property
    def num_ended(self) -> int:
        """Trials that will not go on."""
        return sum(trial.state != "RUNNING" for trial in self.trials)

    @property
    def num_planned(self) -> int:
        """Trials that there will be."""
        return max(self.num_trials or 0, len(self.trials))

    @property
    def knobs(self) -> list[str]:
        """Names of all searched knobs: the policy, then what only some policies have, then what all trials have."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.params)
        sections = list(dict.fromkeys(name.split(".")[0] for name in names))
        shared = {name for name in names if all(name in trial.params for trial in self.trials if trial.params)}
        return sorted(names, key=lambda name: (name != "policy", name in shared, sections.index(name.split(".")[0])))

    def trial(self, number: int | None) -> Trial | None:
        """The trial of that number."""
        return next((trial for trial in self.trials if trial.trial == number), None)

    def reference(self, role: Role) -> Trial | None:
        """The trial of a role, if it was begun."""
        return next((trial for trial in self.trials if trial.role == role), None)

    def ranked(self) -> list[Trial]:
        """Trials that ran to the end, best first."""
        return sorted((trial for trial in self.trials if trial.is_ranked), key=lambda trial: trial.score or 0.0)

    def front(self) -> list[Trial]:
        """Trials that ran to the end and that no other equals in all objectives and beats in one."""
        points = {
            trial.trial: [value for one in trial.objectives or () if (value := finite(one)) is not None]
            for trial in self.ranked()
        }
        points = {number: point for number, point in points.items() if len(point) == len(self.objectives)}
        return [
            trial
            for trial in self.ranked()
            if (point := points.get(trial.trial)) is not None
            and not any(
                other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points.values()
            )
        ]


def knob_title(name: str) -> str:
    """A knob's dotted name as a heading."""
    section, dot, knob = name.rpartition(".")
    return f"{section}: {knob}".replace("_", " ") if dot else name.replace("_", " ")
