"""What a trial is called wherever a person meets it: in logs, processes, gauges and TensorBoard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlim_ray.pipelines.search.trial_job import CONFIRMATION, TRIALS

_CALLED = {TRIALS: "trial", CONFIRMATION: "confirm"}


def called(kind: str) -> str:
    """What one trial of a kind is called; the kind is the folder of the search that such trials are kept in."""
    return _CALLED[kind]


@dataclass(frozen=True)
class TrialLabel:
    """A trial's number, and what tells it from the others."""

    kind: str
    """`trials`, or `confirm` for those that run the best again"""
    number: int
    role: str
    seed: int
    parameters: Mapping[str, Any]

    @property
    def policy(self) -> str:
        """Its masking policy."""
        return str(self.parameters["policy"])

    @property
    def name(self) -> str:
        """`trial-00007-mam`, or `confirm-00007-mam`."""
        return f"{called(self.kind)}-{self.number:05d}-{self.policy}"

    @property
    def tag(self) -> str:
        """Its tag in metrics, `7` or `confirm 7`."""
        return str(self.number) if self.kind == TRIALS else f"{called(self.kind)} {self.number}"

    @property
    def facts(self) -> dict[str, Any]:
        """What its log begins with: number, role, seed, policy, ratios."""
        return {
            called(self.kind): str(self.number),
            "role": self.role.replace("_", " "),
            "seed": str(self.seed),
            **self.parameters,
        }
