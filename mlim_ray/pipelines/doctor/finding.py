"""What is wrong, where, and how to mend it: one line each."""

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    An error stops a cluster from coming up, opens it to others, or stops the work there; a warning costs money or time.
    """

    severity: Severity
    where: str
    """the key, the file or the place"""
    what: str
    mend: str

    @property
    def line(self) -> str:
        return f"{self.severity}: {self.where}: {self.what}; {self.mend}"


@dataclass
class Diagnosis:
    """All that was found, and what a person should know though nothing is wrong with it."""

    findings: list[Finding] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def num_errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def num_warnings(self) -> int:
        return len(self.findings) - self.num_errors

    def add(self, other: "Diagnosis") -> None:
        """Take in what was found elsewhere."""
        self.findings += other.findings
        self.facts += other.facts


def error(where: str, what: str, mend: str) -> Finding:
    return Finding("error", where, what, mend)


def warning(where: str, what: str, mend: str) -> Finding:
    return Finding("warning", where, what, mend)
