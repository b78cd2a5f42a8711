"""`metrics.jsonl` is whole after any crash, and holds each step once (contract C7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlim_ray.training.metrics import MetricsWriter, read_metrics


def write(run: Path, start_step: int, steps: range, attempt: str) -> None:
    writer = MetricsWriter(str(run), start_step)
    for step in steps:
        writer.write({"step": step, "attempt": attempt, "loss/total": 1.0 / step})
    writer.flush()


def steps_and_attempts(run: Path, name: str | None = None) -> list[tuple[int, str]]:
    if name is not None:
        other = run / "other"
        other.mkdir()
        (other / "metrics.jsonl").write_bytes((run / name).read_bytes())
        run = other
    return [(line["step"], line["attempt"]) for line in read_metrics(str(run))]


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(str(tmp_path)) == []


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    writer = MetricsWriter(str(tmp_path), 0)
    lines = [{"step": 1, "loss/total": 0.1 + 0.2, "mode": "text"}, {"step": 2, "loss/total": float("inf")}]
    for number, line in enumerate(lines, 1):
        writer.write(line)
        # Each line can be read at once: a crash loses none that was written.
        assert read_metrics(str(tmp_path)) == lines[:number]


def test_redone_steps_are_set_aside(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 9), "first")
    write(tmp_path, 5, range(6, 8), "second")
    write(tmp_path, 6, range(7, 10), "third")
    assert steps_and_attempts(tmp_path) == [(s, "first") for s in range(1, 6)] + [(6, "second")] + [
        (s, "third") for s in range(7, 10)
    ]
    assert steps_and_attempts(tmp_path, "metrics.redone.jsonl") == [
        (6, "first"),
        (7, "first"),
        (8, "first"),
        (7, "second"),
    ]


def test_a_resume_with_nothing_to_redo_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4), "first")
    before = (tmp_path / "metrics.jsonl").read_bytes()
    MetricsWriter(str(tmp_path), 3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert not (tmp_path / "metrics.redone.jsonl").exists()


@pytest.mark.parametrize("num_bytes_lost", [1, 2, 10, 25])
def test_a_line_that_a_crash_cut_short_is_none(tmp_path: Path, num_bytes_lost: int) -> None:
    write(tmp_path, 0, range(1, 4), "first")
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-num_bytes_lost])
    assert steps_and_attempts(tmp_path) == [(1, "first"), (2, "first")]
    write(tmp_path, 2, range(3, 5), "second")
    assert steps_and_attempts(tmp_path) == [(1, "first"), (2, "first"), (3, "second"), (4, "second")]
