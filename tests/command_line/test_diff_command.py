"""`mlim-ray diff`: what it says, as lines and as JSON, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlim_ray.config import ModelConfig
from tests.command_line.exits import ended
from tests.command_line.test_main import ROOT, refused
from tests.made_runs import run_config, train_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal runs, one of another seed, and one that is not finished and logs at other steps."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "same"):
        train_run(folder / name, run_config())
    train_run(folder / "seed", run_config(seed=1))
    train_run(folder / "slow", run_config(log_every_steps=4), stop_step=9)
    return folder


def diff(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, list[str]]:
    """Exit code and lines of standard output."""
    return ended(capsys, "diff", *argv)


def test_equal_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = diff(capsys, runs / "one", runs / "same", "--json")
    assert code == 0
    assert lines[:-1] == [
        f"A: {runs}/one, logged up to step 12",
        f"B: {runs}/same, logged up to step 12",
        "config: no difference that matters",
        "data: the same prepared set (manifest aaaaaaaaaaaa)",
        "steps: 6 logged by both, 2 to 12",
        "No difference in 6 logged steps.",
    ]
    summary = json.loads(lines[-1])
    assert (summary["equal"], summary["first_step"], summary["first_steps"]) == (True, None, {})


def test_runs_that_differ(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = diff(capsys, runs / "one", runs / "seed", "--json")
    assert code == 1
    text = "\n".join(lines[:-1])
    assert "config: 1 knob differs" in lines and "train.seed 0 1" in text
    assert lines[-2] == "They differ first before the first step, in: config; then data at step 2, loss at step 2."
    summary = json.loads(lines[-1])
    assert not summary["equal"] and summary["first_step"] == 0
    assert summary["first_steps"] == {"config": 0, "data": 2, "loss": 2}
    for entry in summary["entries"]:
        assert f"{entry['a']} {entry['b']}" in " ".join(text.split()), entry["entry"]


def test_long_values_do_not_hide_each_other(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = f"{tmp_path}/{'long/' * 10}the_earlier_run"
    config = run_config().model_copy(update={"model": ModelConfig(init_from=start)})
    code, lines = diff(capsys, runs / "one", train_run(tmp_path / "started", config), "--json")
    assert code == 1 and json.loads(lines[-1])["knobs"][0]["b"] == start
    (line,) = (line for line in lines if line.startswith("model.init_from"))
    assert line.split() == ["model.init_from", "none", f"...{start[-21:]}"]


def test_an_unfinished_run_that_logs_elsewhere(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = diff(capsys, runs / "one", runs / "slow")
    assert code == 0
    assert f"B: {runs}/slow, logged up to step 8 of 12" in lines
    assert "config, of no consequence for what is learned: 1 knob differs" in lines
    assert (
        "steps: 2 logged by both, 4 to 8; means of the losses compared at 0 of them, where both are over the "
        "same steps" in lines
    )


def test_a_tolerance(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = tmp_path / "near"
    near.mkdir()
    (near / "config.yaml").write_bytes((runs / "one" / "config.yaml").read_bytes())
    lines = [json.loads(line) for line in (runs / "one" / "metrics.jsonl").read_text().splitlines()]
    lines[3]["loss/mlm"] *= 1 + 3e-6
    (near / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, said = diff(capsys, runs / "one", near)
    assert (code, said[-1]) == (1, "They differ first at step 8, in: loss.")
    assert "data: not compared, for a run does not say yet which prepared set it learns from" in said
    code, said = diff(capsys, runs / "one", near, "--tolerance", "1e-5")
    assert (code, said[-1]) == (
        0,
        "No difference beyond the tolerance of 1e-05; the largest is 3.0e-06, loss/mlm at step 8.",
    )
    assert diff(capsys, runs / "one", near, "--tolerance=1e-7")[0] == 1


def test_what_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "absent"
    assert refused(capsys, "diff", str(runs / "one"), str(absent)).startswith(f"{absent} holds no run: ")
    for wrong in ("-1", "nan", "inf", "much"):
        line = refused(capsys, "diff", "a", "b", f"--tolerance={wrong}")
        assert line.startswith(f"--tolerance: given {wrong}, expected a number of at least 0")
    assert refused(capsys, "diff", "a").startswith("missing RUN_B")


def test_neither_ray_nor_torch_is_loaded(runs: Path) -> None:
    code = "import sys; from mlim_ray.command_line.main import main; main(); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, "diff", str(runs / "one"), str(runs / "same")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not {"ray", "torch"} & set(done.stdout.splitlines()[-1].split())
